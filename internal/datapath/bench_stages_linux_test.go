package datapath

import "testing"

// BenchmarkVerifier reports how many instructions this kernel's verifier processes for each set of
// stages. The kernel's limit is one million.
func BenchmarkVerifier(b *testing.B) {
	for _, stages := range combinations {
		b.Run(names(stages), func(b *testing.B) {
			all := &Config{Stages: []Stage{RelayStage, QuotaStage, MonitorStage}, Sessions: 16, Prefixes: 16, Sources: 16, Attempts: 16, Flows: 16}
			p := mustLoad(b, all.only(stages))
			info, err := p.objects.Quicway.Info()
			if err != nil {
				b.Fatal(err)
			}
			verified, _ := info.VerifiedInstructions()
			for b.Loop() {
			}
			b.ReportMetric(float64(verified), "insns")
		})
	}
}
