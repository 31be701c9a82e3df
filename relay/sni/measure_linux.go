package sni

import (
	"net"
	"time"
)

// measure returns the segments of both connections and their smoothed round-trip times. Those
// that came out of order count as sent again: the other end has lost one before, or will
// send it again.
func measure(client, upstream *net.TCPConn) (sum sample, rtts [2]time.Duration) {
	for i, conn := range []*net.TCPConn{client, upstream} {
		info, err := tcpInfo(conn)
		if err != nil {
			continue // it has ended
		}
		sum.sent += uint64(info.Data_segs_out) + uint64(info.Data_segs_in)
		sum.again += uint64(info.Total_retrans) + uint64(info.Rcv_ooopack)
		rtts[i] = time.Duration(info.Rtt) * time.Microsecond
	}
	return sum, rtts
}
