// A button with data-opens="id" opens that dialog; one with data-closes closes its own.
export const startDialogs = () => {
  document.addEventListener("click", (event) => {
    const opener = event.target.closest("[data-opens]");
    if (opener) document.getElementById(opener.dataset.opens)?.showModal();
    const closer = event.target.closest("[data-closes]");
    if (closer) closer.closest("dialog")?.close();
    // A click beside the dialog is one on its backdrop, which is the dialog itself.
    if (event.target instanceof HTMLDialogElement) event.target.close();
  });
};
