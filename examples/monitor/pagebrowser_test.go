package main

import (
	"context"
	"fmt"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/quicway/quicway/monitor"
)

// The connections of the tests.
const (
	moving  = "moving.example"
	markup  = "<b>markup</b>.example\u202e"
	written = `<b>markup</b>.example\u{202e}` // as the page shows it
	steady  = "steady.example"
)

// fast are the times of the tests' page.
var fast = pageTimes{interval: 200 * time.Millisecond, keepEnded: 1500 * time.Millisecond}

// liveMonitor is a monitor of a source that the test feeds, and a browser that shows it.
type liveMonitor struct {
	*browser
	feed *feed
	all  map[string]*recorded
}

// live opens the page of a monitor that has seen the handshake and a turn of each connection.
func live(t *testing.T, ctx context.Context, all map[string]*recorded, names ...string) *liveMonitor {
	t.Helper()
	l := &liveMonitor{browser: tab(t, ctx), feed: newFeed(), all: all}
	m, err := monitor.New(l.feed, nil)
	if err != nil {
		t.Fatal(err)
	}
	p := newPage(m, fast)
	running := p.start(t.Context(), m)
	running.Go(func() { m.Run(t.Context()) })
	server := httptest.NewServer(p.handler())
	t.Cleanup(func() {
		server.Close()
		running.Wait() // the test's context is done
	})
	for _, name := range names {
		l.feed.send(l.all[name].turns[0]...)
	}
	l.do(chromedp.Navigate(server.URL))
	l.await(fmt.Sprintf(`document.querySelectorAll("#rows tr").length === %d`, len(names)))
	return l
}

// testPageMany checks that a part of many connections is shown, the number of the others, and
// more of them when asked for.
func testPageMany(t *testing.T, b *browser) {
	p := newPage(sample(t), fast)
	p.catalog.all, p.catalog.taken = listingOf(1500).all, time.Now().Add(time.Hour) // so that nothing is copied
	server := httptest.NewServer(p.handler())
	defer server.Close()
	b.do(chromedp.Navigate(server.URL))
	for _, rows := range []int{100, 200, 300, 400} {
		b.await(fmt.Sprintf(`document.querySelectorAll("#rows tr").length === %d`, rows))
		b.await(fmt.Sprintf(`document.querySelector("#more-text").textContent === "and %s more"`, number(1500-rows)))
		value[bool](b, `document.querySelector("#more-button").click() === undefined`)
	}
	b.await(`document.querySelector("#more-text").textContent === "and 1,000 more: search for fewer"`)
	b.await(`document.querySelectorAll("#rows tr").length === 500 && document.querySelector("#more-button").hidden`)
	b.do(chromedp.SendKeys(chromedp.CSS("#search"), "1234.example"))
	b.await(`document.querySelectorAll("#rows tr").length === 1 && document.querySelector("#more").hidden`)
}

// number formats a number of four digits as the page does.
func number(n int) string { return fmt.Sprintf("%d,%03d", n/1000, n%1000) }

// names is an expression of the names in the list, separated by spaces.
const names = `[...document.querySelectorAll("#rows tr th")].map(e => e.textContent).join(" ")`

// row is an expression of the row of a connection.
func rowOf(name string) string {
	return fmt.Sprintf(`[...document.querySelectorAll("#rows tr")].find(e => e.firstChild.textContent === %q)`, name)
}

// click clicks on a connection in the list.
func (l *liveMonitor) click(name string) {
	l.t.Helper()
	l.await(rowOf(name))
	number := value[string](l.browser, rowOf(name)+`.dataset.number`)
	l.do(chromedp.Click(chromedp.CSS(fmt.Sprintf(`[data-number="%s"] button`, number))))
}

// TestPage shows the page in a browser and uses it as a person would.
func TestPage(t *testing.T) {
	first := newBrowser(t)
	all := record(t, 3, 8, markup, steady, moving)
	r := all[moving]
	turns := spinning(append(r.turns, r.moved...))
	r.turns, r.moved = turns[:len(r.turns)], turns[len(r.turns):]
	for _, part := range []struct {
		name string
		test func(*testing.T, *liveMonitor)
	}{{"mouse", testPageMouse}, {"keyboard", testPageKeyboard}, {"live", testPageLive}, {"end", testPageEnd}, {"motion", testPageMotion}} {
		t.Run(part.name, func(t *testing.T) { part.test(t, live(t, first.ctx, all, markup, steady, moving)) })
	}
	t.Run("many", func(t *testing.T) { testPageMany(t, tab(t, first.ctx)) })
}

// testPageMouse checks what a person sees and does with a mouse: the list, search, sort,
// and the detail of connections with and without the spin bit.
func testPageMouse(t *testing.T, l *liveMonitor) {
	l.await(names + ` === ` + fmt.Sprintf("%q", moving+" "+steady+" "+written)) // the latest first
	if value[bool](l.browser, `document.querySelector("main b") !== null`) {
		t.Error("a name is markup, want text")
	}

	head := `document.querySelector('th[data-key="name"]')`
	l.do(chromedp.Click(chromedp.CSS(`th[data-key="name"] button`)))
	l.await(head + `.getAttribute("aria-sort") === "ascending" && ` + names + ` === ` + fmt.Sprintf("%q", written+" "+moving+" "+steady))
	l.do(chromedp.Click(chromedp.CSS(`th[data-key="name"] button`)))
	l.await(head + `.getAttribute("aria-sort") === "descending" && ` + names + ` === ` + fmt.Sprintf("%q", steady+" "+moving+" "+written))
	if n := value[int](l.browser, `document.querySelectorAll("th[aria-sort]").length`); n != 1 {
		t.Errorf("%d columns say that they sort the list, want 1", n)
	}

	l.do(chromedp.SendKeys(chromedp.CSS("#search"), "192.0.2.1 open"))
	l.await(names + ` === ` + fmt.Sprintf("%q", written) + ` && document.querySelector("#found").textContent === "1 connection found"`)
	l.await(`document.querySelector("#live").textContent === "1 connection found"`)
	l.do(chromedp.Click(chromedp.CSS("#rows button")))
	l.await(`document.querySelector("#detail .hint:not([hidden])")?.textContent.startsWith("No spin bit: the handshake had a round trip of 60.0 ms")`)
	l.await(`document.querySelector("#detail h2").textContent === ` + fmt.Sprintf("%q", written))

	l.do(chromedp.Click(chromedp.CSS("#search")))
	l.press(kb.Escape) // which empties a search field
	l.await(`document.querySelectorAll("#rows tr").length === 3`)
	for _, turn := range l.all[moving].turns[1:] {
		l.feed.send(turn...)
	}
	l.click(moving)
	l.await(`document.querySelectorAll("#detail .spin-dot").length >= 2 && document.querySelectorAll("#detail .handshake-dot").length === 1`)
	l.await(`[...document.querySelectorAll("#detail .axis text")].some(e => /^[1-9]\d* ms$/.test(e.textContent))`) // of round trips
	l.await(`[...document.querySelectorAll("#detail .axis text")].some(e => /^[1-9]\d* s$/.test(e.textContent))`)  // of time
	l.await(`[...document.querySelectorAll("#detail .events li")].map(e => e.className).join() === "mark-begin,mark-handshake,mark-handshake,mark-now"`)
	l.await(`document.querySelectorAll("#detail tbody tr").length === 1 && document.querySelectorAll("#detail .ids li").length >= 3`)
}

// testPageKeyboard checks that all can be done with the keyboard.
func testPageKeyboard(t *testing.T, l *liveMonitor) {
	focused := func(expression string) { t.Helper(); l.await(`document.activeElement === ` + expression) }
	l.slash()
	focused(`document.querySelector("#search")`)
	l.press("s", "t", "e")
	l.await(names + ` === "steady.example"`)
	l.press(kb.Backspace, kb.Backspace, kb.Backspace)
	l.await(`document.querySelectorAll("#rows tr").length === 3`)
	l.press(kb.Tab)
	focused(`document.querySelector('th[data-key="name"] button')`)
	l.press(kb.Enter)
	l.await(names + ` === ` + fmt.Sprintf("%q", written+" "+moving+" "+steady))
	for range 9 { // the other heads, and the row that Tab reaches
		l.press(kb.Tab)
	}
	l.await(`document.activeElement.closest("#rows")`)
	if n := value[int](l.browser, `document.querySelectorAll('#rows [tabindex="0"]').length`); n != 1 {
		t.Errorf("Tab reaches %d rows, want 1", n)
	}
	l.press(kb.Home, kb.ArrowUp)
	focused(rowOf(written) + `.querySelector("button")`)
	l.press(kb.ArrowDown, kb.ArrowDown, kb.ArrowDown)
	focused(rowOf(steady) + `.querySelector("button")`)
	if style := value[string](l.browser, `getComputedStyle(document.activeElement).outlineStyle`); style == "none" {
		t.Error("the focus is not visible")
	}
	l.press(kb.Enter)
	focused(`document.querySelector("#detail h2")`)
	l.await(`document.activeElement.textContent === "steady.example"`)
	l.await(rowOf(steady) + `.querySelector("button").getAttribute("aria-expanded") === "true"`)
	l.press(kb.Tab)
	focused(`document.querySelector("#detail .close")`)
	l.press(kb.Escape)
	focused(rowOf(steady) + `.querySelector("button")`)
	l.await(`document.querySelector("#detail").hidden && document.activeElement.getAttribute("aria-expanded") === "false"`)
}

// testPageLive checks that an update changes the list in place: moves appear, and
// selection, focus, tooltips, marked text and scroll position stay.
func testPageLive(t *testing.T, l *liveMonitor) {
	l.do(chromedp.EmulateViewport(700, 400))
	l.feed.send(l.all[markup].turns[1]...)
	l.feed.send(l.all[steady].turns[1]...)
	l.do(chromedp.Click(chromedp.CSS(`th[data-key="traffic"] button`)))
	l.await(`document.querySelector('th[data-key="traffic"]').getAttribute("aria-sort") === "descending" && ` + names + `.endsWith("moving.example")`)
	l.click(moving)
	l.await(`document.querySelector("#detail h2").textContent === "moving.example" && document.querySelector(".events li")`)
	value[bool](l.browser, `(() => {
		window.row = `+rowOf(moving)+`;
		row.querySelector("button").focus();
		window.cell = row.querySelector(".column-traffic");
		window.before = cell.textContent;
		window.hint = row.querySelector(".column-rtt").title;
		scrollTo(0, 300);
		window.scrolled = scrollY;
		getSelection().selectAllChildren(document.querySelector("#detail dd"));
		window.marked = getSelection().toString();
		return true;
	})()`)
	moves := l.all[moving].moved
	l.feed.send(l.all[moving].turns[1]...)
	l.feed.send(moves[0]...)
	l.await(names + `.startsWith("moving.example")`) // which now has most traffic
	l.await(`document.querySelector("#moves li")?.textContent.includes("rebinding, high 192.0.2.3:50000 → :51000")`)
	l.await(`document.querySelector("#live").textContent === "moving.example: rebinding to 192.0.2.3:51000"`)
	l.await(`cell.textContent !== before && row.isConnected && row === ` + rowOf(moving))
	for what, kept := range map[string]string{
		"selection":       `row.classList.contains("selected") && document.querySelectorAll("tr.selected").length === 1`,
		"focus":           `document.activeElement === row.querySelector("button")`,
		"scroll position": `scrolled > 0 && scrollY === scrolled`,
		"tooltip":         `row.querySelector(".column-rtt").title === hint && hint === "by the handshake" || hint === "by the spin bit"`,
		"marked text":     `marked !== "" && getSelection().toString() === marked`,
	} {
		if !value[bool](l.browser, kept) {
			t.Errorf("after an update the %s has changed", what)
		}
	}
	for _, turn := range moves[1:] {
		l.feed.send(turn[:min(len(turn), 40)]...)
	}
	l.await(fmt.Sprintf(`document.querySelectorAll("#detail .mark-move rect").length === %d`, len(moves)))
	l.await(`document.querySelectorAll("#moves li").length === 5`)
	if n := value[int](l.browser, overprints); n != 0 {
		t.Errorf("%d labels of events overprint others", n)
	}
}

// testPageEnd checks that a connection that ends is shown so, fades, and disappears.
func testPageEnd(t *testing.T, l *liveMonitor) {
	last := l.all[moving].turns[1] // of the only connection that goes on
	l.feed.pass(4 * time.Minute)
	l.feed.send(last[30:40]...)
	l.click(written)
	l.await(`document.querySelector("#detail h2").textContent === ` + fmt.Sprintf("%q", written))
	value[bool](l.browser, `(window.row = `+rowOf(written)+`).querySelector("button").focus() === undefined`)
	l.feed.pass(2 * time.Minute)
	l.feed.send(last[30:40]...)
	l.await(`row.classList.contains("state-ended") && row.classList.contains("fading") && row.querySelector(".column-state").textContent === "ended: idle"`)
	l.await(`row.isConnected && getComputedStyle(row.firstChild).opacity < .9`)
	l.await(`document.querySelector("#detail .events .mark-end")?.textContent.includes("ended: idle")`)
	l.await(`!row.isConnected && document.querySelectorAll("#rows tr").length === 1`)
	l.await(`document.activeElement.closest("#rows")`) // the focus went to a row that is left
	l.await(`!document.querySelector(".gone").hidden && document.querySelector("#detail h2").textContent === ` + fmt.Sprintf("%q", written))
}

// overprints is an expression of the number of labels in the detail's charts that overlap another
// one, or lie partly outside of the chart.
const overprints = `[...document.querySelectorAll("#detail .chart svg")].map(chart => {
	const frame = chart.getBoundingClientRect();
	const all = [...chart.querySelectorAll(".mark rect, .lane text, .axis text")].map(e => e.getBoundingClientRect());
	return all.filter((a, i) => a.left < frame.left - 1 || a.right > frame.right + 1 || all.some((b, j) => i !== j &&
		a.left < b.right - .5 && b.left < a.right - .5 && a.top < b.bottom - 2 && b.top < a.bottom - 2)).length;
}).reduce((a, b) => a + b, 0)`

// testPageMotion checks that nothing moves or fades for who wants no motion.
func testPageMotion(t *testing.T, l *liveMonitor) {
	animated := `document.getAnimations().length > 0`
	l.await(animated) // the dot that says that the page is live
	reduced := emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-reduced-motion", Value: "reduce"}}}
	if _, err := chromedp.Call(l.ctx, emulation.SetEmulatedMedia, reduced); err != nil {
		t.Fatal(err)
	}
	l.await(`!(` + animated + `)`)
}
