"use strict";
// A click on a heading sorts its table by that column: numbers the greatest first, names by letter;
// a second click turns the order round. Cells without a number stay last.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      const numeric = column > 0;
      const first = numeric ? "descending" : "ascending";
      const other = numeric ? "ascending" : "descending";
      const order = head.getAttribute("aria-sort") === first ? other : first;
      heads.forEach((each) => each.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", order);
      const sign = order === "ascending" ? 1 : -1;
      const compare = (a, b) => {
        const x = a.cells[column], y = b.cells[column];
        if (!numeric) return sign * x.textContent.localeCompare(y.textContent);
        const p = x.dataset.value, q = y.dataset.value;
        if (p === "" || q === "") return (p === "") - (q === "");
        return sign * (Number(p) - Number(q));
      };
      const body = table.tBodies[0];
      body.append(...[...body.rows].sort(compare));
    });
  });
}
