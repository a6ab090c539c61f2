/* The strip of workers above the list: how many there are, what they run, and which of them is not well. */
(function () {
    "use strict";

    var b = window.batchord,
        LATE = 1,  // seconds that an event loop may be late, as `batchord doctor` has it
        box = document.getElementById("workers"),
        says = document.getElementById("workers-says"),
        list = document.getElementById("workers-list"),
        entries = new Map(),
        known = "";

    function troubles(worker) {
        var found = [];
        if (worker.loop_lag > LATE) {
            found.push("event loop blocked for " + b.duration(worker.loop_lag));
        }
        if (worker.drained) {
            found.push("drained");
        }
        if (worker.other_version) {
            found.push(worker.version ? "Batchord " + worker.version : "of another version");
        }
        return found;
    }

    function made() {
        var entry = {
            item: b.el("li", {"class": "worker"}), name: b.el("span", {"class": "worker-name"}),
            fill: b.el("span", {"class": "worker-fill"}), busy: b.el("span", {"class": "worker-busy"}),
            why: b.el("span", {"class": "worker-why"})
        };
        entry.item.append(
            entry.name, b.el("span", {"class": "worker-bar", "aria-hidden": "true"}, entry.fill), entry.busy, entry.why
        );
        return entry;
    }

    function update(entry, worker) {
        var why = troubles(worker);
        entry.name.textContent = worker.name || worker.process;
        entry.fill.style.width = 100 * Math.min(1, worker.in_flight / (worker.slots || 1)) + "%";
        entry.busy.textContent = b.number(worker.in_flight) + " of " + b.number(worker.slots);
        entry.why.textContent = why.join(", ");
        entry.item.classList.toggle("worker-ill", why.length > 0);
        entry.item.title = [
            worker.process, worker.since ? "since " + b.time(worker.since) : "",
            worker.chains.length ? "chains: " + worker.chains.join(", ") : ""
        ].filter(Boolean).join("\n");
    }

    b.workers = function (workers) {
        var fresh = new Map(), now = JSON.stringify(workers), more, versions;
        if (now === known) {
            return;
        }
        known = now;
        box.hidden = !workers.count;
        versions = new Set(workers.shown.map(function (worker) {
            return worker.version;
        }));
        workers.shown.forEach(function (worker, place) {
            var entry = entries.get(worker.process) || made();
            update(entry, worker);
            fresh.set(worker.process, entry);
            if (list.children[place] !== entry.item) {
                list.insertBefore(entry.item, list.children[place] || null);
            }
        });
        entries.forEach(function (entry, process) {
            if (!fresh.has(process)) {
                entry.item.remove();
            }
        });
        entries = fresh;
        more = workers.count - workers.shown.length;
        says.textContent = b.number(workers.count) + (workers.count === 1 ? " worker" : " workers") + " · "
            + b.number(workers.in_flight) + " of " + b.number(workers.slots) + " slots busy"
            + (versions.size === 1 && workers.shown[0].version ? " · Batchord " + workers.shown[0].version : "")
            + (more ? " · " + b.number(more) + " more than are shown" : "");
    };
}());
