"use strict";
(() => {
  const root = document.documentElement;
  const at = (id) => document.getElementById(id);
  root.classList.add("scripted");

  // ---- theme: system, light, dark; kept where the browser allows it
  const themes = ["system", "light", "dark"];
  const kept = { read() { try { return localStorage.getItem("qconvert-theme"); } catch { return null; } },
                 write(value) { try { localStorage.setItem("qconvert-theme", value); } catch { /* a private window */ } } };
  const wear = (theme) => {
    if (theme === "system") delete root.dataset.theme; else root.dataset.theme = theme;
    at("theme").querySelector("span").textContent = theme;
  };
  let theme = themes.includes(kept.read()) ? kept.read() : "system";
  wear(theme);
  at("theme").addEventListener("click", () => {
    theme = themes[(themes.indexOf(theme) + 1) % themes.length];
    wear(theme);
    kept.write(theme);
  });

  if (!at("nodes")) return; // the page of another command than quantize

  // ---- layer table: sort and filter
  const table = at("nodes"), body = table.tBodies[0], rows = [...body.rows];
  const heads = [...table.tHead.rows[0].cells];
  // on narrow screens style.css lays rows out as cards, which some browsers take for the end of the table
  for (const [which, role] of [["thead, tbody", "rowgroup"], ["tr", "row"], ["td", "cell"], ["thead th", "columnheader"], ["tbody th", "rowheader"]])
    for (const element of table.querySelectorAll(which)) element.setAttribute("role", role);
  table.setAttribute("role", "table");

  const key = (row, column, numeric) => {
    const cell = row.cells[column];
    if (!numeric) return cell.textContent.toLowerCase();
    const text = cell.dataset.sort ?? cell.textContent;
    return text === "" ? NaN : Number(text);
  };
  const sortBy = (column, descending) => {
    const numeric = heads[column].dataset.type === "number";
    const keyed = rows.map((row, i) => ({ row, i, key: key(row, column, numeric) }));
    const sign = descending ? -1 : 1;
    keyed.sort((a, b) => {
      // rows without a value stay last in either direction
      const gaps = numeric ? Number.isNaN(a.key) - Number.isNaN(b.key) : (a.key === "") - (b.key === "");
      if (gaps) return gaps;
      return (a.key < b.key ? -sign : a.key > b.key ? sign : 0) || a.i - b.i;
    });
    body.append(...keyed.map((k) => k.row));
    heads.forEach((head, i) => {
      if (i === column) head.setAttribute("aria-sort", descending ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    });
    at("sort").value = `${column} ${descending ? "down" : "up"}`;
  };
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => sortBy(column, head.getAttribute("aria-sort") === "ascending"));
    for (const [value, arrow] of [["up", "↑"], ["down", "↓"]])
      at("sort").append(new Option(`${button.textContent} ${arrow}`, `${column} ${value}`));
  });
  at("sort").addEventListener("change", (event) => {
    const [column, direction] = event.target.value.split(" ");
    sortBy(Number(column), direction === "down");
  });

  const all = at("shown").textContent;
  const filter = () => {
    const words = at("find").value.toLowerCase().split(/\s+/).filter(Boolean);
    const runs = at("runs").value, operator = at("operator").value;
    let shown = 0;
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !(words.every((w) => text.includes(w)) && (!operator || row.cells[2].textContent === operator)
        && (!runs || row.cells[3].textContent === runs));
      shown += !row.hidden;
    }
    at("shown").textContent = shown === rows.length ? all : `${shown} of ${all}`;
  };
  for (const id of ["find", "runs", "operator"]) at(id).addEventListener("input", filter);
  at("find").form.addEventListener("submit", (event) => event.preventDefault());
  const reveal = (row) => {
    if (row.hidden) { at("find").form.reset(); filter(); }
    for (const other of table.querySelectorAll(".found")) other.classList.remove("found");
    row.classList.add("found");
    row.scrollIntoView({ block: "center" });
  };

  // ---- graph strip: names on hover, rows on click
  const strip = document.querySelector(".strip"), cells = [...strip.querySelectorAll("i")], hint = at("hint");
  const named = (cell) => rows[cells.indexOf(cell)];
  strip.addEventListener("mouseover", (event) => {
    if (event.target.tagName !== "I") return;
    const [, name, operator, runs] = named(event.target).cells;
    hint.textContent = `${name.textContent} (${operator.textContent}, ${runs.textContent})`;
  });
  strip.addEventListener("click", (event) => { if (event.target.tagName === "I") reveal(named(event.target)); });

  // ---- tensors: one at a time
  const figures = [...document.querySelectorAll("figure.tensor")], choice = at("tensor");
  const show = () => {
    figures.forEach((figure) => figure.classList.toggle("shown", figure.id === choice.value));
    document.querySelector(".gallery").classList.toggle("one", !at("every").checked);
  };
  if (choice) {
    const step = (by) => { choice.selectedIndex = (choice.selectedIndex + by + figures.length) % figures.length; show(); };
    choice.addEventListener("change", show);
    at("every").addEventListener("change", show);
    at("previous").addEventListener("click", () => step(-1));
    at("following").addEventListener("click", () => step(1));
    show();
  }

  // ---- links to rows and tensors that a filter or the choice hides
  const follow = () => {
    const target = at(location.hash.slice(1));
    if (rows.includes(target)) reveal(target);
    else if (figures.includes(target)) {
      choice.value = target.id;
      show();
      target.scrollIntoView({ block: "center" });
    }
  };
  addEventListener("hashchange", follow);
  document.addEventListener("click", (event) => {
    // the same link again changes no hash
    if (event.target.closest("a")?.hash && event.target.closest("a").hash === location.hash) follow();
  });
  follow();
})();
