// The left side: counts by state, open alerts, the list of assets.

import { standingOf } from "./act.js";
import { assetLink, h, keyed, say, shape } from "./dom.js";
import { STATES, causesOf, diagnosisOf, duration, moment, plural, ratio as ratioOf, verdictOf, words } from "./format.js";

const $ = (id) => document.getElementById(id);
const ALWAYS = ["critical", "major", "warning", "normal"];
const METER = 1.5; // the meter's end: its mark for the threshold is at two thirds

/** Draw an answer of /api/overview. `chosen` is the asset that is looked at, `filter` the state that is listed. */
export function drawOverview(said, { chosen, filter, onFilter }) {
  drawCounts(said.counts, filter, onFilter);
  drawAlerts(said, chosen);
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

function drawAlerts(said, chosen) {
  const total = said.alerts.length + said.more_alerts;
  say($("alerts-count"), total ? total.toLocaleString("en-GB") : "");
  keyed($("alerts"), said.alerts, (alert) => alert.id, alertItem, (item, alert) => updateAlert(item, alert, said.at_ms, chosen));
  const assets = Object.values(said.counts).reduce((sum, count) => sum + count, 0);
  $("no-alerts").hidden = total > 0;
  if (total === 0) {
    const text = assets
      ? `${plural(assets, "asset is", "assets are")} watched by ${plural(said.detectors, "detector")}.`
      : "This worker has not judged a reading yet. Assets appear here when their first readings have been scored.";
    $("no-alerts").replaceChildren(...(assets ? [h("strong", { text: "Nothing is open" })] : []), text);
  }
}

function alertItem(alert) {
  const link = h("a", { href: assetLink(alert.asset) }, shape(alert.severity), h("span", { class: "who", text: alert.asset }), h("span", { class: "when" }), h("span", { class: "why" }), h("span", { class: "by" }));
  return h("li", {}, link);
}

function updateAlert(item, alert, nowMs, chosen) {
  const link = item.firstElementChild;
  if (link.dataset.state !== alert.severity) {
    link.dataset.state = alert.severity;
    link.firstElementChild.replaceWith(shape(alert.severity));
  }
  mark(link, alert.asset === chosen);
  const opened = Date.parse(alert.opened);
  const lasts = duration(Date.parse(alert.last_seen) - opened);
  const line = `${alert.sequence}|${alert.severity}|${lasts}`;
  if (link.dataset.line === line) return;
  link.dataset.line = line;
  const [, , when, why, by] = link.children;
  say(when, `${moment(opened, nowMs)}, ${lasts}`);
  const verdict = verdictOf(alert.verdict);
  const diagnosis = diagnosisOf(alert);
  say(why, `${causesOf(alert.causes) || "no single cause"}${verdict && `: ${verdict}`}${diagnosis && `; ${diagnosis}`}`);
  const standing = standingOf(alert, nowMs);
  say(by, `${STATES[alert.severity]}, ${alert.detector}, peak\u00a0${ratioOf(alert.peak / alert.threshold)}\u00a0×\u00a0threshold${standing && `. ${standing}`}`);
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

function mark(link, chosen) {
  if (chosen) link.setAttribute("aria-current", "true");
  else link.removeAttribute("aria-current");
}
