/* Items per second over time, as bars of one SVG: succeeded, and failed on top. */
window.batchord.plot = function (where, slots) {
    "use strict";

    var NS = "http://www.w3.org/2000/svg",
        b = window.batchord,
        width = Math.max(240, where.clientWidth),
        height = 180,
        left = 44,
        bottom = 22,
        top = 10;

    function svg(tag, attributes, text) {
        var made = document.createElementNS(NS, tag);
        Object.entries(attributes).forEach(function ([name, value]) {
            made.setAttribute(name, value);
        });
        if (text !== undefined) {
            made.textContent = text;
        }
        return made;
    }

    if (!slots.length) {
        where.replaceChildren(b.el("p", {"class": "batch-nothing"}, "Nothing has ended yet."));
        return;
    }
    var seconds = slots[0].seconds,
        /* The last slot has hardly begun: a moment says nothing about a second. */
        span = function (slot) {
            return Math.max(slot.seconds, seconds / 2);
        },
        most = Math.max.apply(null, slots.map(function (slot) {
            return (slot.succeeded + slot.failed) / span(slot);
        })) || 1,
        start = new Date(slots[0].at),
        end = new Date(start.getTime() + 1000 * seconds * slots.length),
        places = Math.max(slots.length, 10),
        step = (width - left) / places,
        scale = (height - top - bottom) / most,
        long = end - start > 86400000,
        clock = function (date) {
            return long ? date.toLocaleString([], {dateStyle: "short", timeStyle: "short"}) : date.toLocaleTimeString();
        },
        plot = svg("svg", {
            viewBox: "0 0 " + width + " " + height, width: width, height: height, role: "img",
            "aria-label": "Items per second from " + clock(start) + " to " + clock(end) +
                ", at most " + b.rate(most) + ", each bar is " + b.duration(seconds)
        });

    [0, 0.5, 1].forEach(function (part) {
        var y = height - bottom - part * most * scale;
        plot.append(
            svg("line", {x1: left, x2: width, y1: y, y2: y, "class": "plot-grid"}),
            svg("text", {x: left - 6, y: y + 4, "text-anchor": "end", "class": "plot-text"},
                part ? b.rate(part * most) + "/s" : "0")
        );
    });
    slots.forEach(function (slot, n) {
        var x = left + n * step, base = height - bottom, group = svg("g", {});
        [["succeeded", slot.succeeded], ["failed", slot.failed]].forEach(function ([kind, count]) {
            var tall = count / span(slot) * scale;
            if (count) {
                base -= tall;
                group.append(svg("rect", {
                    x: x + (step > 3 ? 0.5 : 0), y: base, width: Math.max(0.5, step - (step > 3 ? 1 : 0)), height: tall,
                    "class": "plot-" + kind
                }));
            }
        });
        group.append(svg("title", {}, clock(new Date(slot.at)) + ", " + b.duration(slot.seconds) + ": " +
            b.number(slot.succeeded) + " succeeded, " + b.number(slot.failed) + " failed"));
        plot.append(group);
    });
    plot.append(
        svg("text", {x: left, y: height - 5, "class": "plot-text"}, clock(start)),
        svg("text", {x: left + step * slots.length, y: height - 5, "text-anchor": slots.length / places < 0.4 ? "start" : "end", "class": "plot-text"},
            slots.length / places < 0.4 && slots.length > 0 ? "" : clock(end))
    );
    where.replaceChildren(plot);
};
