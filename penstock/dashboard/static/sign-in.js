// A link of `penstock up` has the token behind "#", which browsers send to nobody: not in the
// request, not as a referrer. It is taken out of the address before anything else happens.
const takeToken = () => {
  const form = document.querySelector("[data-sign-in]");
  const token = location.hash.slice(1);
  if (!form || !token) return;
  history.replaceState(null, "", location.pathname + location.search);
  form.elements.token.value = token;
  // Who is signed in decides: a link from somebody else must not change who they are.
  if ("signedIn" in form.dataset) form.querySelector("button").focus();
  else form.requestSubmit();
};

takeToken();
// The link pasted into a tab that shows this page already loads nothing anew.
addEventListener("hashchange", takeToken);
