/* One batch: what is shown comes from Flower as it changes; buttons go to Flower's API. */
(function () {
    "use strict";

    var b = window.batchord,
        page = document.getElementById("batch"),
        dialog = document.getElementById("batch-dialog"),
        batch = null,
        shown = {},
        acting = false,
        look;

    function id(name) {
        return document.getElementById(name);
    }

    /* Draw a part only if what it shows has changed: focus and selection in it stay. */
    function once(part, value, draw) {
        var known = JSON.stringify(value);
        if (shown[part] !== known) {
            shown[part] = known;
            draw();
        }
    }

    function named(item) {
        var text = String(item.index);
        return item.task ? b.el("a", {href: page.dataset.taskUrl.replace("ID", encodeURIComponent(item.task))}, text) : text;
    }

    var WHEN = {
        pause: function () { return batch.status === "in_progress"; },
        resume: function () { return batch.status === "paused"; },
        cancel: function () { return batch.status === "in_progress" || batch.status === "paused"; },
        retry: function () { return batch.status === "completed" && batch.request_counts.failed > 0; }
    };

    function buttons() {
        page.querySelectorAll("[data-action]").forEach(function (button) {
            button.disabled = acting || !("allowed" in button.dataset) || !WHEN[button.dataset.action]();
        });
    }

    function cookie(name) {
        var match = document.cookie.match("(^|;)\\s*" + name + "\\s*=\\s*([^;]+)");
        return match ? decodeURIComponent(match.pop()) : "";
    }

    function sure(question, button, style) {
        id("batch-question").textContent = question;
        id("batch-yes").textContent = button;
        id("batch-yes").className = "btn btn-sm btn-" + (style || "danger");
        dialog.returnValue = "";
        dialog.showModal();
        return new Promise(function (resolve) {
            dialog.addEventListener("close", function () {
                resolve(dialog.returnValue === "yes");
            }, {once: true});
        });
    }

    function toast(message, failed) {
        var note = b.el("div", {"class": "toast show text-bg-" + (failed ? "danger" : "success"), role: failed ? "alert" : "status"},
            b.el("div", {"class": "toast-body"}, message));
        document.getElementById("toast-container").append(note);
        setTimeout(function () { note.remove(); }, failed ? 10000 : 4000);
    }

    function spent() {
        var tokens = b.tokens(batch.usage), parts = [];
        if (batch.cost_usd !== null) {
            parts.push(b.cost(batch.cost_usd));
        }
        if (tokens !== null) {
            parts.push(b.number(tokens) + " tokens");
        }
        return parts.join(" and ") || "nothing";
    }

    /* Ask for a budget to go on with; "" if the batch is not paused for its budget, null if it shall not go on. */
    async function larger() {
        var budget = batch.budget || {}, fields = {usd: id("batch-usd"), tokens: id("batch-tokens")}, given;
        if (!batch.reason || batch.reason.code !== "budget_exceeded") {
            return "";
        }
        Object.entries(fields).forEach(function ([name, field]) {
            field.parentElement.hidden = !budget[name];
            field.value = budget[name] ? 2 * Number(budget[name]) : "";
        });
        id("batch-budget").hidden = false;
        given = await sure("It has used " + spent() + ". Go on with a budget, in all, of", "Resume", "primary");
        id("batch-budget").hidden = true;
        return given ? "?" + new URLSearchParams({usd: fields.usd.value, tokens: fields.tokens.value}) : null;
    }

    async function act(button) {
        var action = button.dataset.action, code = button.dataset.code, more = code ? "?code=" + encodeURIComponent(code) : "",
            left = b.number(batch.request_counts.total - b.done(batch.request_counts));
        if (action === "resume") {
            more = await larger();
            if (more === null) {
                return;
            }
        }
        if (action === "cancel" && !await sure("Cancel this batch? " + left + " items will not run.", "Cancel the batch")) {
            return;
        }
        if (action === "retry" && !await sure("Run " + b.number(Number(button.dataset.count || batch.request_counts.failed)) + " failed items again?", "Retry")) {
            return;
        }
        acting = true;
        buttons();
        try {
            var answer = await fetch(button.dataset.url + more, {
                method: "POST", credentials: "same-origin", headers: {"X-XSRFToken": cookie("_xsrf")}
            });
            if (!answer.ok) {
                toast((await answer.text()) || "Error " + answer.status, true);
            } else {
                var told = await answer.json();
                toast("retried" in told ? b.number(told.retried) + " items run again" : "The batch is " + told.status.replace("_", " "), false);
            }
        } catch (error) {
            toast("Flower does not answer", true);
        }
        acting = false;
        await look();
        buttons();
    }

    function reason() {
        var why = batch.status === "paused" && batch.reason, box = id("batch-reason");
        box.hidden = batch.status !== "paused";
        box.replaceChildren(
            b.el("strong", {}, why ? "Paused: " + why.code : "Paused by someone"),
            ...(why && why.message ? [b.el("span", {}, why.message)] : []),
            b.el("span", {}, !why ? "No item starts until it is resumed."
                : why.code === "day_budget_exceeded" ? "" : why.code === "budget_exceeded" ? "Resume it with a larger budget." : "Mend that, then resume.")
        );
        if (why && why.index !== null) {
            box.append(b.el("span", {}, "Met by item " + why.index + "."));
        }
    }

    function failures() {
        var where = id("batch-failures"), retry = page.querySelector("[data-action=retry]");
        if (!batch.failures.length) {
            where.replaceChildren(b.el("p", {"class": "batch-nothing"}, "No item has failed."));
            return;
        }
        where.replaceChildren(...batch.failures.map(function (group) {
            var again = retry && b.el("button", {
                    "class": "btn btn-sm btn-outline-primary", type: "button", "data-action": "retry",
                    "data-code": group.code, "data-count": group.count, "data-url": retry.dataset.url,
                    "data-allowed": "allowed" in retry.dataset ? "" : null, title: retry.title || null,
                    "aria-label": "Retry those that failed with " + group.code
                }, "Retry these"),
                items = group.first.map(function (item) {
                    var line = b.el("li", {}, "item ", named(item));
                    if (item.custom_id) {
                        line.append(" ", b.el("code", {}, item.custom_id));
                    }
                    if (item.attempts > 1) {
                        line.append(" after " + item.attempts + " attempts");
                    }
                    if (item.message) {
                        line.append(b.el("span", {"class": "batch-message"}, (item.step ? item.step + ": " : "") + item.message));
                    }
                    if (item.input) {
                        line.append(b.el("details", {}, b.el("summary", {}, "input"), b.el("pre", {"class": "detail-code"}, item.input)));
                    }
                    return line;
                }),
                more = group.count - items.length;
            if (more > 0) {
                items.push(b.el("li", {"class": "batch-more"}, (items.length ? "and " : "") + b.number(more) + " more"));
            }
            return b.el("div", {"class": "batch-failure"},
                b.el("div", {"class": "batch-failure-head"},
                    b.el("strong", {}, group.code), b.el("span", {"class": "badge text-bg-danger"}, b.number(group.count)), again || null),
                b.el("ul", {}, ...items));
        }));
    }

    function attempts() {
        return Object.entries(batch.attempts).map(function ([n, count]) {
            return b.el("span", {"class": "batch-pair"}, b.number(count) + " at attempt " + (n === "10" ? "10 or later" : n));
        });
    }

    function waits() {
        var usage = batch.usage || {};
        return usage.rate_limit_waits && b.number(usage.rate_limit_waits) + " calls, " + b.duration(usage.rate_limit_wait_ms / 1000) + " in all";
    }

    function details() {
        var budget = batch.budget || {},
            rows = [
                ["Metadata", Object.entries(batch.metadata).map(function ([key, value]) {
                    return b.el("span", {"class": "batch-pair"}, key + "=" + value);
                })],
                ["Workers now", batch.workers.map(function (name) {
                    return b.el("a", {"class": "me-3", href: page.dataset.workerUrl.replace("ID", encodeURIComponent(name))}, name);
                })],
                ["Calls to providers", batch.usage && batch.usage.requests && b.number(batch.usage.requests)],
                ["Wait for their next attempt", batch.put_off && b.number(batch.put_off) + " items"],
                ["Waits for rate limits", waits()],
                ["Outcomes by attempt", Object.keys(batch.attempts).length > 1 && attempts()],
                ["Starts beyond the first", batch.restarts && b.number(batch.restarts)],
                ["Run again on request", batch.retried && b.number(batch.retried) + " items"],
                ["Budget", [budget.usd && b.cost(Number(budget.usd)), budget.tokens && b.number(budget.tokens) + " tokens"].filter(Boolean).join(", ")],
                ["Took", b.took(batch) !== null && b.duration(b.took(batch))],
                ["Created", b.time(batch.created_at)],
                ["Expires", batch.expires_at && b.time(batch.expires_at)],
                ["Ended", batch.ended_at && b.time(batch.ended_at)]
            ];
        id("batch-details").replaceChildren(...rows.filter(function ([, value]) {
            return value && value.length !== 0;
        }).map(function ([name, value]) {
            return b.el("div", {"class": "detail-row"}, b.el("dt", {}, name), b.el("dd", {}, ...[].concat(value)));
        }));
    }

    function show(found) {
        batch = found;
        var counts = batch.request_counts,
            metrics = {
                rate: b.rate(batch.rate), eta: b.duration(batch.eta), took: b.duration(b.took(batch)), running: b.number(batch.running),
                failed: b.number(counts.failed), latency_p50: b.duration(batch.latency_p50), latency_p95: b.duration(batch.latency_p95),
                tokens: b.short(b.tokens(batch.usage)), cost: b.cost(batch.cost_usd)
            };
        id("batch-chain").textContent = batch.chain;
        once("status", [batch.status, counts.failed], function () { id("batch-status").replaceChildren(b.badge(batch)); });
        once("trouble", batch.trouble, function () {
            b.sentence(id("batch-trouble"), batch.trouble);
        });
        once("reason", [batch.status, batch.reason], reason);
        once("bar", counts, function () {
            id("batch-bar").replaceChildren(b.bar(batch));
            id("batch-counts").textContent = b.says(counts);
        });
        page.querySelectorAll("[data-metric]").forEach(function (value) {
            value.textContent = metrics[value.dataset.metric];
        });
        // One of the two is known: what is left, or what it took.
        page.querySelector("[data-metric=eta]").parentElement.hidden = Boolean(batch.ended_at);
        page.querySelector("[data-metric=took]").parentElement.hidden = !batch.ended_at;
        once("plot", batch.throughput, function () { b.plot(id("batch-plot"), batch.throughput); });
        once("failures", batch.failures, failures);
        once("details", [batch.metadata, batch.put_off, batch.workers, batch.usage, batch.attempts, batch.restarts, batch.retried, batch.budget, batch.ended_at], details);
        buttons();
    }

    page.addEventListener("click", function (event) {
        var button = event.target.closest("[data-action]");
        if (button) {
            act(button);
        }
    });
    window.addEventListener("resize", function () {
        if (batch) {
            b.plot(id("batch-plot"), batch.throughput);
        }
    });
    look = b.live(page, function () { return ""; }, show);
}());
