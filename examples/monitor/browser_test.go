package main

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/chromedp"

	"github.com/quicway/quicway/internal/test/nettest"
)

// patience is how long a test waits for the page. A change shows within about a second.
const patience = 10 * time.Second

// browser is a tab of a browser without a window.
type browser struct {
	t   *testing.T
	ctx context.Context
}

// newBrowser starts Chromium. Without it the test is skipped. At the end of the tab's test
// that test fails if the console has errors, such as a violated policy.
func newBrowser(t *testing.T) *browser {
	t.Helper()
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(nettest.Chromium(t)), chromedp.UserDataDir(t.TempDir()), chromedp.WindowSize(1400, 1000),
		chromedp.NoSandbox) // root has none, and the page is our own
	ctx, stop := chromedp.NewExecAllocator(context.Background(), options...) // until after the cleanups
	t.Cleanup(stop)
	return tab(t, ctx)
}

// tab opens a tab of the context's browser, or starts it.
func tab(t *testing.T, ctx context.Context) *browser {
	t.Helper()
	ctx, _ = chromedp.NewContext(ctx)
	b := &browser{t: t, ctx: ctx}
	messages := chromedp.Console(ctx)
	var reading sync.WaitGroup
	reading.Go(func() {
		for m, err := range messages {
			if err == nil && (m.Type == "error" || m.Type == chromedp.ConsoleException) {
				t.Errorf("the browser says: %s", m.Text)
			}
		}
	})
	t.Cleanup(func() {
		if err := chromedp.Cancel(ctx); err != nil {
			t.Errorf("closing the tab: %v", err)
		}
		reading.Wait()
	})
	return b
}

// do performs actions.
func (b *browser) do(actions ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience+5*time.Second)
	defer cancel()
	if err := chromedp.Do(ctx, actions...); err != nil {
		b.t.Fatal(err)
	}
}

// press presses keys one after the other.
func (b *browser) press(keys ...string) {
	b.t.Helper()
	for _, key := range keys {
		b.do(chromedp.KeyEvent(key))
	}
}

// slash presses the key of that name. chromedp would send its character even if the page has
// taken the key.
func (b *browser) slash() {
	b.t.Helper()
	for _, kind := range []input.DispatchKeyEventType{input.DispatchKeyEventTypeKeyDown, input.DispatchKeyEventTypeKeyUp} {
		key := input.DispatchKeyEventParams{Type: kind, Key: "/", Code: "Slash", Text: "/"}
		if _, err := chromedp.Call(b.ctx, input.DispatchKeyEvent, key); err != nil {
			b.t.Fatal(err)
		}
	}
}

// value returns the value of an expression.
func value[T any](b *browser, expression string, options ...chromedp.EvaluateOption) T {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience+5*time.Second)
	defer cancel()
	out, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression, options...))
	if err != nil {
		b.t.Fatalf("%s: %v", expression, err)
	}
	return out
}

// await waits in the browser until a condition holds.
func (b *browser) await(condition string) {
	b.t.Helper()
	if !b.within(patience, condition) {
		b.t.Fatalf("not in time: %s\nthe page has: %.3000s", condition, value[string](b, `document.body.innerText`))
	}
}

// within reports whether a condition comes to hold within a time.
func (b *browser) within(limit time.Duration, condition string) bool {
	b.t.Helper()
	return value[bool](b, fmt.Sprintf(`new Promise(done => {
		const end = performance.now() + %d;
		const look = () => {
			if (%s) done(true);
			else if (performance.now() > end) done(false);
			else setTimeout(look, 15);
		};
		look();
	})`, limit.Milliseconds(), condition), chromedp.EvalAwaitPromise)
}
