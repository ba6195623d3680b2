// Incidents: alerts of a line that came together, with where to look first.

import { alertItem, updateAlert } from "./alert.js";
import { assetLink, h, keyed, say, shape } from "./dom.js";
import { STATES, duration, moment, plural, words } from "./format.js";

const $ = (id) => document.getElementById(id);

/** Where to look first, in words: `pump-1 (heat)`. */
export const firstOf = (incident) => `${incident.first_asset}${incident.first_signal ? ` (${words(incident.first_signal)})` : ""}`;

/** Draw the incidents of an answer of /api/overview; the ids of the alerts that are shown in them. */
export function drawIncidents(said, chosen) {
  $("incidents-part").hidden = !said.incidents.length;
  say($("incidents-count"), said.incidents.length ? said.incidents.length.toLocaleString("en-GB") : "");
  keyed($("incidents"), said.incidents, (incident) => incident.id, incidentItem, (item, incident) => updateIncident(item, incident, said.at_ms, chosen));
  return new Set(said.incidents.flatMap((incident) => incident.alerts.map((alert) => alert.id)));
}

function incidentItem(incident) {
  const heading = h("h3", { id: `incident-${incident.id}` }, shape(incident.severity), h("span", { class: "who" }), h("span", { class: "when" }));
  const first = h("p", { class: "first" }, "Look first at ", h("a"), h("span"));
  const alerts = h("ol", { class: "alerts", "aria-labelledby": heading.id });
  return h("li", {}, heading, first, alerts, h("p", { class: "muted more" }));
}

function updateIncident(item, incident, nowMs, chosen) {
  const [heading, first, alerts, more] = item.children;
  if (item.dataset.state !== incident.severity) {
    item.dataset.state = incident.severity;
    heading.firstElementChild.replaceWith(shape(incident.severity));
  }
  const since = Date.parse(incident.since);
  const count = incident.alerts.length + incident.more_alerts;
  const [, who, when] = heading.children;
  say(who, `Line ${incident.line}: ${plural(count, "alert")} of ${plural(incident.assets, "asset")}`);
  say(when, `${STATES[incident.severity]}, ${moment(since, nowMs)}, ${duration(nowMs - since)}`);
  const [link, why] = first.children;
  const elsewhere = new Set(incident.elsewhere);
  point(link, incident.first_asset, elsewhere);
  say(link, incident.first_asset);
  const earliest = incident.alerts[0]?.onset === incident.since; // the likely first cause is listed first
  const because = earliest ? "Its alert began first." : "Of those that began together it comes first in the process.";
  say(why, `${incident.first_signal ? `: ${words(incident.first_signal)}` : ""}. ${because}`);
  keyed(alerts, incident.alerts, (alert) => alert.id, alertItem, (child, alert) => {
    updateAlert(child, alert, nowMs, chosen);
    point(child.firstElementChild, alert.asset, elsewhere);
  });
  const notes = [];
  if (incident.more_alerts) notes.push(`${plural(incident.more_alerts, "more alert")} not shown.`);
  if (elsewhere.size) notes.push(`Watched by another worker, on whose page they can be looked at: ${[...elsewhere].join(", ")}.`);
  more.hidden = !notes.length;
  say(more, notes.join(" "));
}

/** Let a link lead to an asset, unless this worker has nothing of it to show. */
function point(link, asset, elsewhere) {
  if (elsewhere.has(asset)) link.removeAttribute("href");
  else link.setAttribute("href", assetLink(asset));
}
