// An alert in a list: who, since when, why, and what was done about it.

import { standingOf } from "./act.js";
import { assetLink, h, say, shape } from "./dom.js";
import { STATES, causesOf, diagnosisOf, duration, moment, ratio as ratioOf, verdictOf } from "./format.js";

/** An item of a list of alerts, which leads to its asset. */
export function alertItem(alert) {
  const link = h("a", { href: assetLink(alert.asset) }, shape(alert.severity), h("span", { class: "who", text: alert.asset }), h("span", { class: "when" }), h("span", { class: "why" }), h("span", { class: "by" }));
  return h("li", {}, link);
}

/** Bring it up to date; one that is over, as an incident may have, says so. */
export function updateAlert(item, alert, nowMs, chosen) {
  const link = item.firstElementChild;
  const state = alert.state === "resolved" ? "resolved" : alert.severity;
  if (link.dataset.state !== state) {
    link.dataset.state = state;
    link.firstElementChild.replaceWith(shape(state));
  }
  mark(link, alert.asset === chosen);
  const opened = Date.parse(alert.opened);
  const lasts = duration(Date.parse(alert.last_seen) - opened);
  const line = `${alert.sequence}|${state}|${lasts}`;
  if (link.dataset.line === line) return;
  link.dataset.line = line;
  const [, , when, why, by] = link.children;
  say(when, `${moment(opened, nowMs)}, ${lasts}`);
  const verdict = verdictOf(alert.verdict);
  const diagnosis = diagnosisOf(alert);
  say(why, `${causesOf(alert.causes) || "no single cause"}${verdict && `: ${verdict}`}${diagnosis && `; ${diagnosis}`}`);
  const standing = standingOf(alert, nowMs);
  say(by, `${state === "resolved" ? "over, was " : ""}${STATES[alert.severity]}, ${alert.detector}, peak\u00a0${ratioOf(alert.peak / alert.threshold)}\u00a0×\u00a0threshold${standing && `. ${standing}`}`);
}

/** Whether it is about the asset that is looked at. */
export function mark(link, chosen) {
  if (chosen) link.setAttribute("aria-current", "true");
  else link.removeAttribute("aria-current");
}
