package limit

// Slots returns how many slots are kept.
func (g *Gate) Slots() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.slots)
}
