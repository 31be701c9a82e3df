package datapath

import "fmt"

// Reason says what the program has done with a packet. Package xdp documents the reasons by
// their names.
type Reason uint8

// The reasons of the relay stage and of the quota stage: enum reason in bpf/maps.h.
const (
	Relayed Reason = iota
	PassOther
	PassShort
	PassLong
	PassControl
	PassUnknown
	PassSource
	PassTTL
	PassMixed
	PassNoRoute
	EventLost

	QuotaNoLease
	QuotaAllowed
	QuotaOther
	QuotaContinuing
	QuotaKnownAttempt
	QuotaNew
	QuotaReportLost
	QuotaDenied
	QuotaPacketRate
	QuotaShortInitial
	QuotaRefused
	QuotaAttemptRate

	numReasons
)

// The reasons of the monitor stage: enum outcome in bpf/flows.h.
const (
	MonitorReported = numReasons + iota
	MonitorLimited
	MonitorRingFull
	MonitorIgnored
	MonitorSkipped
	MonitorFlowNew
	MonitorFlowFailed

	endOfReasons
)

var reasonNames = [endOfReasons]string{
	"relayed", "pass_other", "pass_short", "pass_long", "pass_control", "pass_unknown",
	"pass_source", "pass_ttl", "pass_mixed", "pass_no_route", "event_lost",
	"quota_no_lease", "quota_allowed", "quota_other", "quota_continuing", "quota_known_attempt", "quota_new", "quota_report_lost",
	"quota_denied", "quota_packet_rate", "quota_short_initial", "quota_refused", "quota_attempt_rate",
	"monitor_reported", "monitor_limited", "monitor_ring_full", "monitor_ignored", "monitor_skipped",
	"monitor_flow_new", "monitor_flow_failed",
}

// String returns the reason as a label for metrics.
func (r Reason) String() string {
	if r < endOfReasons {
		return reasonNames[r]
	}
	return fmt.Sprintf("reason %d", uint8(r))
}
