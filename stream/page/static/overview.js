// The left side: counts by state, incidents, open alerts, the list of assets.

import { alertItem, mark, updateAlert } from "./alert.js";
import { assetLink, h, keyed, say, shape } from "./dom.js";
import { STATES, duration, plural, ratio as ratioOf, words } from "./format.js";
import { drawIncidents } from "./incidents.js";

const $ = (id) => document.getElementById(id);
const ALWAYS = ["critical", "major", "warning", "normal"];
const METER = 1.5; // the meter's end: its mark for the threshold is at two thirds

/** Draw an answer of /api/overview. `chosen` is the asset that is looked at, `filter` the state that is listed. */
export function drawOverview(said, { chosen, filter, onFilter }) {
  drawCounts(said.counts, filter, onFilter);
  drawAlerts(said, drawIncidents(said, chosen), chosen);
  drawAssets(said, chosen, filter);
}

function drawCounts(counts, filter, onFilter) {
  const shown = Object.keys(STATES).filter((state) => ALWAYS.includes(state) || counts[state] || filter === state);
  keyed(
    $("counts"),
    shown,
    (state) => state,
    (state) => {
      const button = h("button", { type: "button", "data-state": state }, h("b"), h("span", {}, shape(state), STATES[state]));
      button.addEventListener("click", () => onFilter(state));
      return h("li", {}, button);
    },
    (item, state) => {
      const button = item.firstElementChild;
      say(button.querySelector("b"), counts[state].toLocaleString("en-GB"));
      button.toggleAttribute("data-none", !counts[state]);
      button.setAttribute("aria-pressed", String(filter === state));
    },
  );
}

/** `grouped`: ids of the alerts that are shown as parts of incidents. */
function drawAlerts(said, grouped, chosen) {
  const total = said.alerts.length + said.more_alerts;
  say($("alerts-count"), total ? total.toLocaleString("en-GB") : "");
  const alone = said.alerts.filter((alert) => !grouped.has(alert.id));
  keyed($("alerts"), alone, (alert) => alert.id, alertItem, (item, alert) => updateAlert(item, alert, said.at_ms, chosen));
  const assets = Object.values(said.counts).reduce((sum, count) => sum + count, 0);
  $("no-alerts").hidden = alone.length > 0;
  if (total) {
    say($("no-alerts"), said.more_alerts ? `${plural(said.more_alerts, "more alert")} not shown.` : "All that is open is part of the incidents above.");
  } else {
    const text = assets
      ? `${plural(assets, "asset is", "assets are")} watched by ${plural(said.detectors, "detector")}.`
      : "This worker has not judged a reading yet. Assets appear here when their first readings have been scored.";
    $("no-alerts").replaceChildren(...(assets ? [h("strong", { text: "Nothing is open" })] : []), text);
  }
}

function drawAssets(said, chosen, filter) {
  const total = said.assets.length + said.more_assets;
  say($("assets-count"), `${total.toLocaleString("en-GB")}${filter ? ` ${STATES[filter]}` : ""}`);
  keyed(
    $("assets"),
    said.assets,
    (asset) => asset.name,
    (asset) =>
      h(
        "li",
        {},
        h("a", { href: assetLink(asset.name), title: asset.name }, shape(asset.state), h("span", { class: "name", text: asset.name }), h("span", { class: "ratio" }), h("span", { class: "meter", "aria-hidden": "true" }, h("i"))),
      ),
    (item, asset) => {
      const link = item.firstElementChild;
      if (link.dataset.state !== asset.state) {
        link.dataset.state = asset.state;
        link.firstElementChild.replaceWith(shape(asset.state));
      }
      mark(link, asset.name === chosen);
      const ratio = asset.state === "silent" ? `silent ${duration(asset.quiet_s * 1000)}` : asset.ratio === null ? "no value" : ratioOf(asset.ratio);
      say(link.querySelector(".ratio"), ratio);
      link.querySelector("i").style.width = `${Math.min((asset.ratio ?? 0) / METER, 1) * 100}%`;
      const spoken = asset.ratio === null ? "" : `, score ${asset.ratio.toFixed(1)} of threshold 1`;
      const label = `${asset.name}, ${words(STATES[asset.state])}${spoken}`;
      if (link.getAttribute("aria-label") !== label) link.setAttribute("aria-label", label);
    },
  );
  const notes = [];
  if (said.more_assets) notes.push(`${plural(said.more_assets, "more asset")} not shown: search for a name, or choose a state above.`);
  if (said.full) notes.push("The list is full: further assets are watched all the same, and their alerts are shown.");
  if (!total && filter) notes.push(`No asset is ${STATES[filter]}.`);
  else if (!total && $("query").value) notes.push("No asset has that in its name.");
  $("more-assets").hidden = !notes.length;
  say($("more-assets"), notes.join(" "));
}
