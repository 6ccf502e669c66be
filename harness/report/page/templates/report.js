"use strict";
(() => {
  const find = (selector, root = document) => root.querySelector(selector);
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const filters = find("#filters");
  const choices = find("#curve-choices");
  const tables = all("table.sortable");
  const rows = window.CURVES.rows;
  const names = { model: 0, dataset: 1, optimizer: 2 };
  const first = new Set(window.CURVES.first);
  const hiddenAtFirst = () => new Set(rows.flatMap((row) => row.methods.map((m) => m.method)).filter((m) => !first.has(m)));
  let hidden = hiddenAtFirst();
  let sorts = {};

  // The address keeps every choice after #, so that a view can be sent on.
  function remember() {
    const kept = new URLSearchParams();
    for (const [name, value] of new FormData(filters)) if (value) kept.set(name, value);
    for (const [id, [column, direction]] of Object.entries(sorts)) kept.set(`sort-${id}`, `${column} ${direction}`);
    if (choices.row.selectedIndex > 0) kept.set("row", rows[choices.row.value].row.join(" "));
    for (const name of ["metric", "x"]) if (choices[name].selectedIndex > 0) kept.set(name, choices[name].value);
    if (choices.bands && !choices.bands.checked) kept.set("bands", "off");
    const before = hiddenAtFirst();
    if (hidden.size !== before.size || [...hidden].some((m) => !before.has(m))) kept.set("hidden", [...hidden].join(" "));
    history.replaceState(null, "", `#${kept}`);
  }

  function recall() {
    const text = decodeURI(location.hash.slice(1));
    if (text && !text.includes("=")) return;
    const kept = new URLSearchParams(location.hash.slice(1));
    for (const field of filters.elements) if (field.name) field.value = kept.get(field.name) ?? "";
    const row = rows.findIndex((entry) => entry.row.join(" ") === kept.get("row"));
    choices.row.value = String(Math.max(row, 0));
    for (const name of ["metric", "x"]) {
      const known = [...choices[name].options].some((option) => option.value === kept.get(name));
      choices[name].value = known ? kept.get(name) : choices[name].options[0].value;
    }
    if (choices.bands) choices.bands.checked = kept.get("bands") !== "off";
    hidden = kept.has("hidden") ? new Set(kept.get("hidden").split(" ").filter(Boolean)) : hiddenAtFirst();
    sorts = {};
    for (const table of tables) {
      const [column, direction] = (kept.get(`sort-${table.id}`) ?? "").split(" ");
      if (column) sorts[table.id] = [column, direction === "descending" ? "descending" : "ascending"];
      sort(table);
    }
    filter();
    draw();
  }

  // Tables: a value that is not known goes last whichever way.
  function compare(a, b) {
    const x = Number(a), y = Number(b);
    if (!Number.isNaN(x) && !Number.isNaN(y)) return x - y;
    return a.localeCompare(b, "en", { numeric: true });
  }

  const planned = new Map(tables.map((table) => [table, [...table.tBodies[0].rows]]));

  function sort(table) {
    const [column, direction] = sorts[table.id] ?? [];
    const heads = [...[...table.tHead.rows].at(-1).cells];
    heads.forEach((head) => head.removeAttribute("aria-sort"));
    let order = planned.get(table);
    const place = heads.findIndex((head) => column && find("button", head)?.dataset.column === column);
    if (place >= 0) {
      heads[place].setAttribute("aria-sort", direction);
      const sign = direction === "descending" ? -1 : 1;
      const value = (row) => row.cells[place].dataset.sort.replace("inf", "Infinity");
      order = [...order].sort((a, b) => {
        const [x, y] = [value(a), value(b)];
        if (x === "" || y === "") return (x === "") - (y === "");
        return sign * compare(x, y);
      });
    }
    table.tBodies[0].append(...order);
  }

  function filter() {
    const wanted = Object.fromEntries(new FormData(filters));
    const q = (wanted.q ?? "").trim().toLowerCase();
    let shown = 0, total = 0;
    for (const table of tables) {
      const several = table.classList.contains("filtered");
      for (const row of table.tBodies[0].rows) {
        let keep = row.dataset.method.toLowerCase().includes(q);
        if (several) for (const name of Object.keys(names)) keep &&= !wanted[name] || row.dataset[name] === wanted[name];
        row.hidden = !keep;
        if (table.id === "main") { total += 1; shown += keep ? 1 : 0; }
      }
    }
    find("#shown").textContent = `${shown} of ${total} lines`;
  }

  for (const table of tables) {
    table.tHead.addEventListener("click", (event) => {
      const column = event.target.closest("button")?.dataset.column;
      if (!column) return;
      const [before, direction] = sorts[table.id] ?? [];
      // Numbers first from the highest down, names from a to z; a third click gives the plan's order back.
      const first = event.target.closest("th").classList.contains("number") ? "descending" : "ascending";
      const second = first === "descending" ? "ascending" : "descending";
      if (before !== column) sorts[table.id] = [column, first];
      else if (direction === first) sorts[table.id] = [column, second];
      else delete sorts[table.id];
      sort(table);
      remember();
    });
  }
  filters.addEventListener("input", () => { filter(); remember(); });
  filters.addEventListener("submit", (event) => event.preventDefault());
  filters.addEventListener("reset", () => setTimeout(() => { filter(); remember(); }));

  // Curves
  const dashes = { solid: "", dash: "6 3", dot: "2 3", dashdot: "7 3 2 3", longdash: "11 3" };

  function legend(methods) {
    const box = find("#legend");
    const focused = document.activeElement?.dataset?.legend;
    box.replaceChildren();
    const add = (into, label, name, pressed, act) => {
      const button = document.createElement("button");
      button.type = "button";
      button.dataset.legend = name;
      if (pressed !== null) button.setAttribute("aria-pressed", String(pressed));
      button.append(label);
      button.addEventListener("click", act);
      into.append(button);
      return button;
    };
    const group = (name) => {
      const element = document.createElement("div");
      element.className = "family";
      element.setAttribute("role", "group");
      element.setAttribute("aria-label", name);
      const title = document.createElement("span");
      title.append(name);
      element.append(title);
      box.append(element);
      return element;
    };
    let family = null, into = box;
    for (const method of methods) {
      if (method.family !== family) into = group(family = method.family);
      const button = add(into, method.label, method.method, !hidden.has(method.method), () => {
        if (!hidden.delete(method.method)) hidden.add(method.method);
        draw();
        remember();
      });
      button.insertAdjacentHTML("afterbegin",
        `<svg width="28" height="8" aria-hidden="true"><line x1="0" y1="4" x2="28" y2="4" stroke="${method.colour}" stroke-width="2.5" stroke-dasharray="${dashes[method.dash]}"/></svg>`);
    }
    const every = group("every method");
    add(every, "all", "all of them", null, () => { hidden.clear(); draw(); remember(); });
    add(every, "none", "none of them", null, () => { methods.forEach((m) => hidden.add(m.method)); draw(); remember(); });
    add(every, "as at first", "as at first", null, () => { hidden = hiddenAtFirst(); draw(); remember(); });
    if (focused) find(`[data-legend="${CSS.escape(focused)}"]`, box)?.focus();
  }

  function translucent(colour, alpha) {
    const part = (start) => parseInt(colour.slice(start, start + 2), 16);
    return `rgba(${part(1)},${part(3)},${part(5)},${alpha})`;
  }

  function traces(method, metric, x, bands) {
    const values = method.values, mean = values[`${metric}_mean`], std = values[`${metric}_std`];
    if (!mean || !values[x]) return [];
    const known = mean.map((value, place) => place).filter((place) => mean[place] !== null);
    const xs = known.map((place) => values[x][place]), ys = known.map((place) => mean[place]);
    const spread = known.map((place) => (std ? std[place] ?? 0 : 0));
    const common = { x: xs, showlegend: false, legendgroup: method.method };
    const found = [];
    if (bands && spread.some((value) => value > 0)) {
      found.push({ ...common, y: ys.map((y, i) => y - spread[i]), mode: "lines", line: { width: 0 }, hoverinfo: "skip" });
      found.push({ ...common, y: ys.map((y, i) => y + spread[i]), mode: "lines", line: { width: 0 }, fill: "tonexty", fillcolor: translucent(method.colour, 0.13), hoverinfo: "skip" });
    }
    found.push({
      ...common, y: ys, name: method.label, mode: xs.length > 30 ? "lines" : "lines+markers",
      line: { color: method.colour, dash: method.dash, width: 2 },
      marker: { color: method.colour, symbol: method.marker, size: xs.length > 1 ? 6 : 11 },
      customdata: known.map((place) => [spread[known.indexOf(place)], values.n[place]]),
      hovertemplate: "%{y:.4g} ± %{customdata[0]:.2g} (n=%{customdata[1]})<extra>%{fullData.name}</extra>",
    });
    return found;
  }

  function draw() {
    if (!rows.length) {
      find("#plot").textContent = "No cell is finished yet.";
      return;
    }
    const row = rows[choices.row.value], metric = choices.metric.value, x = choices.x.value;
    const shown = row.methods.filter((method) => !hidden.has(method.method));
    legend(row.methods);
    const notes = [];
    if (shown.length < row.methods.length) notes.push(`${shown.length} of ${row.methods.length} methods are drawn; the buttons above add the others.`);
    if (window.CURVES.thinned) notes.push(`Longer curves are drawn at ${window.CURVES.thinned} of their epochs; the figures' data have all.`);
    find("#chosen").hidden = !notes.length;
    find("#chosen").textContent = notes.join(" ");
    const label = (field) => field.options[field.selectedIndex].textContent;
    const axis = { gridcolor: "#e4e4e4", zeroline: false, linecolor: "#767676", automargin: true };
    const layout = {
      margin: { l: 50, r: 12, t: 12, b: 45 }, hovermode: "x unified", font: { family: "system-ui, sans-serif", size: 13, color: "#1a1a1a" },
      xaxis: { ...axis, title: { text: label(choices.x) } }, yaxis: { ...axis, title: { text: label(choices.metric) } },
    };
    const data = shown.flatMap((method) => traces(method, metric, x, choices.bands?.checked));
    Plotly.react("plot", data, layout, {
      displaylogo: false, responsive: true, plotlyServerURL: "", modeBarButtonsToRemove: ["select2d", "lasso2d", "sendChartToCloud"],
    });
    find("#plot").setAttribute("aria-label",
      `${label(choices.metric)} against ${label(choices.x)}, ${row.row.join(", ")}: ${shown.map((m) => m.label).join(", ") || "no method"}. The table below has the values.`);
    if (find("#curve-table").open) tabulate();
  }

  function tabulate() {
    const row = rows[choices.row.value], metric = choices.metric.value;
    const table = document.createElement("table");
    table.createCaption().textContent = `${choices.metric.options[choices.metric.selectedIndex].textContent}, ${row.row.join(", ")}: means over seeds by epoch`;
    const shown = row.methods.filter((m) => !hidden.has(m.method) && m.values[`${metric}_mean`]);
    const epochs = [...new Set(shown.flatMap((m) => m.values.epoch))].sort((a, b) => a - b);
    const head = table.createTHead().insertRow();
    const heading = (text, scope, into) => {
      const cell = document.createElement("th");
      cell.scope = scope;
      cell.textContent = text;
      into.append(cell);
    };
    heading("method", "col", head);
    epochs.forEach((epoch) => heading(epoch, "col", head));
    const body = table.createTBody();
    for (const method of shown) {
      const line = body.insertRow();
      heading(method.method, "row", line);
      for (const epoch of epochs) {
        const place = method.values.epoch.indexOf(epoch);
        const value = place < 0 ? null : method.values[`${metric}_mean`][place];
        line.insertCell().textContent = value === null ? "" : String(value);
      }
    }
    find("#curve-table .scroll").replaceChildren(table);
  }

  // What no curve has is not offered.
  const drawn = (name) => rows.some((row) => row.methods.some((method) => method.values[name]?.some((value) => value)));
  for (const option of [...choices.metric.options]) if (rows.length && !drawn(`${option.value}_mean`)) option.remove();
  if (![...choices.metric.options].some((option) => drawn(`${option.value}_std`))) choices.bands.closest("label").remove();
  rows.forEach((entry, place) => choices.row.add(new Option(entry.row.join(", "), String(place))));
  choices.addEventListener("input", () => { draw(); remember(); });
  choices.addEventListener("submit", (event) => event.preventDefault());
  find("#curve-table").addEventListener("toggle", (event) => { if (event.target.open && rows.length) tabulate(); });

  // Sections are reached without touching the choices in the address.
  for (const link of all('a[href^="#"]')) {
    link.addEventListener("click", (event) => {
      const target = find(link.getAttribute("href"));
      if (!target) return;
      event.preventDefault();
      target.tabIndex = -1;
      target.scrollIntoView();
      target.focus({ preventScroll: true });
    });
  }
  addEventListener("hashchange", recall);
  addEventListener("beforeprint", () => { find("#plot").style.width = "26cm"; if (rows.length) Plotly.Plots.resize("plot"); });
  addEventListener("afterprint", () => { find("#plot").style.width = ""; if (rows.length) Plotly.Plots.resize("plot"); });
  recall();
})();
