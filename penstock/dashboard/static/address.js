// A page that answers a form says which address it has (data-address): to load that again is safe.
export const startAddress = () => {
  const said = document.querySelector("[data-address]")?.dataset.address;
  if (said && said !== location.pathname) history.replaceState(history.state, "", said);
};
