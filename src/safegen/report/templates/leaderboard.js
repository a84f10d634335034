
const filters = document.querySelector(".filters");

// A row is shown if all that its defense changes may be changed; nothing always may.
function filter() {
  const model = filters.elements.model.value;
  const ticked = [...filters.querySelectorAll("input:checked")].map((box) => box.value);
  const may = new Set(["nothing", ...ticked]);
  for (const board of document.querySelectorAll(".board")) {
    board.hidden = model !== "" && board.dataset.model !== model;
    for (const row of board.querySelectorAll("tbody tr")) {
      row.hidden = !row.dataset.changes.split("+").every((change) => may.has(change));
    }
  }
}

filters.addEventListener("change", filter);
filter();
