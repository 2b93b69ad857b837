"""The dashboard: pages in a browser, beside the API and in the same process.

A page asks the functions of `penstock.api` as whoever is signed in, and decides nothing that they
decide. How a page is made is told in CONTRIBUTING.md.
"""
