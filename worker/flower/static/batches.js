/* The list: rows stay where they are and change in place, so that focus and selection stay too. */
(function () {
    "use strict";

    var b = window.batchord,
        page = document.getElementById("batches"),
        body = document.getElementById("batches-rows"),
        empty = document.getElementById("batches-empty"),
        trouble = document.getElementById("batches-trouble"),
        text = document.getElementById("batches-text"),
        newer = document.getElementById("batches-newer"),
        older = document.getElementById("batches-older"),
        query = new URLSearchParams(location.search),
        wanted = {
            status: query.get("status") || "", failures: query.get("failures") || "",
            text: query.get("text") || "", after: query.get("after") || ""
        },
        withFailures = document.getElementById("batches-failures"),
        before = [],
        next = null,
        rows = new Map(),
        look;

    function params() {
        var kept = new URLSearchParams();
        Object.entries(wanted).forEach(function ([name, value]) {
            if (value) {
                kept.set(name, value);
            }
        });
        return kept.toString();
    }

    function change(what) {
        Object.assign(wanted, what);
        var kept = params();
        history.replaceState(null, "", location.pathname + (kept ? "?" + kept : ""));
        mark();
        look();
    }

    function mark() {
        document.querySelectorAll("[data-status]").forEach(function (button) {
            var on = button.dataset.status === wanted.status;
            button.classList.toggle("active", on);
            button.setAttribute("aria-pressed", on);
        });
        withFailures.classList.toggle("active", Boolean(wanted.failures));
        withFailures.setAttribute("aria-pressed", Boolean(wanted.failures));
        newer.disabled = !wanted.after;
    }

    function cell(label, style) {
        return b.el("td", {"data-label": label, "class": style});
    }

    function made(batch) {
        var row = b.el("tr", {"data-id": batch.id}),
            name = cell("Batch", "batches-name"),
            cells = {
                status: cell("Status"), progress: cell("Progress", "batches-progress"),
                rate: cell("Rate", "text-end"), time: cell("Time", "text-end"),
                tokens: cell("Tokens", "text-end"), cost: cell("Cost", "text-end"), age: cell("Age", "text-end")
            },
            link = b.el("a", {href: page.dataset.batchUrl.replace("ID", batch.id)}, batch.chain),
            pairs = Object.entries(batch.metadata).map(function ([key, value]) {
                return b.el("span", {"class": "batch-pair", title: key + "=" + value}, key + "=" + value);
            });
        name.append(link, b.el("code", {"class": "batch-id"}, batch.id), b.el("span", {"class": "batch-pairs"}, ...pairs));
        row.append(name, ...Object.values(cells));
        return {row: row, cells: cells, known: ""};
    }

    /* What is not known takes no room on a small screen. */
    function fill(cell, value, text) {
        var unknown = value === null || value === undefined;
        cell.textContent = unknown ? b.NONE : text;
        cell.classList.toggle("batch-unknown", unknown);
    }

    function update(entry, batch) {
        var cells = entry.cells, known = JSON.stringify(batch), took = b.took(batch);
        cells.age.textContent = b.age(batch.created_at);
        cells.age.title = b.time(batch.created_at);
        if (entry.known === known) {
            return;
        }
        entry.known = known;
        cells.status.replaceChildren(
            b.badge(batch),
            ...(batch.reason && batch.status === "paused"
                ? [b.el("span", {"class": "batch-why"}, batch.reason.code)] : [])
        );
        cells.progress.replaceChildren(b.bar(batch), b.el("span", {"class": "batch-says"}, b.says(batch.request_counts)));
        fill(cells.rate, batch.rate, b.rate(batch.rate) + "/s");
        fill(cells.time, took === null ? batch.eta : took,
            took === null ? b.duration(batch.eta) + " left" : "took " + b.duration(took));
        fill(cells.tokens, b.tokens(batch.usage), b.short(b.tokens(batch.usage)));
        fill(cells.cost, batch.cost_usd, b.cost(batch.cost_usd));
    }

    function nothing() {
        if (next) {
            empty.textContent = "None of the newest 2,000 fits: look at older ones.";
        } else if (wanted.text || wanted.status || wanted.failures || wanted.after) {
            empty.textContent = "No batch fits.";
        } else {
            empty.replaceChildren(
                b.el("p", {}, "There are no batches yet. Begin with one, from a terminal or from Python:"),
                b.el("pre", {"class": "detail-code"}, "batchord submit CHAIN -i inputs.jsonl"),
                b.el("pre", {"class": "detail-code"}, "from batchord import Client\nClient().submit(\"CHAIN\", [{\"ticket\": \"...\"}])"),
                b.el("p", {}, "`batchord chains` lists the chains that the workers have.")
            );
        }
    }

    function others(count) {
        return count ? b.number(count) + (count === 1 ? " batch" : " batches")
            + " here of another version of Batchord, which this Flower does not show" : "";
    }

    function show(found) {
        var fresh = new Map();
        found.batches.forEach(function (batch, place) {
            var entry = rows.get(batch.id) || made(batch);
            update(entry, batch);
            fresh.set(batch.id, entry);
            if (body.children[place] !== entry.row) {
                body.insertBefore(entry.row, body.children[place] || null);
            }
        });
        rows.forEach(function (entry, id) {
            if (!fresh.has(id)) {
                entry.row.remove();
            }
        });
        rows = fresh;
        next = found.next;
        older.disabled = !next;
        empty.hidden = found.batches.length > 0;
        if (!empty.hidden) {
            nothing();
        }
        b.sentence(trouble, [found.trouble, others(found.others)].filter(Boolean).join(". "));
        b.workers(found.workers);
        document.getElementById("batches-counts").textContent =
            b.number(found.active) + " live, " + b.number(found.total) + " in the ledger";
    }

    document.querySelectorAll("[data-status]").forEach(function (button) {
        button.addEventListener("click", function () {
            before = [];
            change({status: button.dataset.status, after: ""});
        });
    });
    withFailures.addEventListener("click", function () {
        before = [];
        change({failures: wanted.failures ? "" : "1", after: ""});
    });
    var typing = null;
    text.addEventListener("input", function () {
        clearTimeout(typing);
        typing = setTimeout(function () {
            before = [];
            change({text: text.value.trim(), after: ""});
        }, 250);
    });
    older.addEventListener("click", function () {
        before.push(wanted.after);
        change({after: next});
    });
    newer.addEventListener("click", function () {
        change({after: before.pop() || ""});
    });

    text.value = wanted.text;
    mark();
    look = b.live(page, function () { return "?" + params(); }, show);
}());
