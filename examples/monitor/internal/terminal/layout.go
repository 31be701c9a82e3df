package terminal

// Widths of what stands between the columns.
const (
	gap    = 1
	margin = 2 // a sign for the row, and a space
)

// enough is the width of an address of IPv4 with a port.
const enough = 21

// widths are the widths of the texts that columns may grow to, by column.
type widths [len(columns)]int

// add adds the texts of a row.
func (w *widths) add(r *row) {
	for i := range columns {
		if columns[i].static != nil {
			w[i] = max(w[i], len(columns[i].static(r)))
		}
	}
}

// lay returns the width of each column, 0 for one that is left out. The column by which the
// list is sorted is not left out.
func (w *widths) lay(total, sorted int) (out widths) {
	free := total - margin + gap
	for i := range columns {
		out[i] = columns[i].least
		if columns[i].static != nil {
			out[i] = min(out[i], max(w[i], len(columns[i].title)+1)) // with the sign of the order
		}
		free -= out[i] + gap
	}
	for free < 0 {
		i := out.last(sorted)
		if i < 0 {
			break
		}
		free += out[i] + gap
		out[i] = 0
	}
	if free < 0 { // only the name, or the sorted column beside it
		out[nameColumn] = max(out[nameColumn]+free, 0)
		return out
	}
	w.grow(&out, free)
	return out
}

// grow distributes the cells that are free: first so that addresses of IPv4 fit, then all
// texts; the rest is for more of the trend.
func (w *widths) grow(out *widths, free int) {
	for _, limit := range [...]int{enough, maxText} {
		for i := range columns {
			if out[i] > 0 && columns[i].static != nil {
				more := max(min(w[i]-out[i], columns[i].most-out[i], limit-out[i], free), 0)
				out[i], free = out[i]+more, free-more
			}
		}
	}
	if out[trendColumn] > 0 {
		out[trendColumn] += min(free, maxSamples/2)
	}
}

// last returns the column to leave out next, or -1.
func (w *widths) last(sorted int) int {
	found := -1
	for i := range columns {
		if w[i] > 0 && i != sorted && i != nameColumn && (found < 0 || columns[i].leave > columns[found].leave) {
			found = i
		}
	}
	return found
}
