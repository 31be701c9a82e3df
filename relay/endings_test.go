package relay

import (
	"testing"
	"time"

	"github.com/quicway/quicway/internal/control"
)

// TestEndingsExpire checks that the endings of sessions and accounts are forgotten when no
// token can refer to them any more, and not before.
func TestEndingsExpire(t *testing.T) {
	var e endings
	now := time.Now()
	id, account := control.SessionID{1}, accountTag{1}
	e.session(id, now.Add(time.Minute))
	e.account(account, now.Add(time.Minute))
	old := content{account: account, expiry: now.Add(time.Second)}
	e.expire(now.Add(59 * time.Second))
	if !e.has(id) || !e.voids(old) {
		t.Error("an ending was forgotten too early")
	}
	e.expire(now.Add(61 * time.Second))
	if e.has(id) || len(e.sessions) != 0 || len(e.accounts) != 0 {
		t.Errorf("%d sessions and %d accounts are kept, want none", len(e.sessions), len(e.accounts))
	}
}
