package chat

import (
	"hash/fnv"

	"charm.land/lipgloss/v2"
)

// styles are the colours, for a dark or a light background.
type styles struct {
	bar      lipgloss.Style // the line at the top
	barDim   lipgloss.Style
	unread   lipgloss.Style
	dim      lipgloss.Style // times, what is told
	self     lipgloss.Style // our own name
	warn     lipgloss.Style // gaps and rewinds
	bad      lipgloss.Style // what was refused
	good     lipgloss.Style
	waiting  lipgloss.Style
	divider  lipgloss.Style
	names    []lipgloss.Style
	prompt   lipgloss.Style
	plain    lipgloss.Style
	pendings lipgloss.Style
}

func newStyles(dark bool) styles {
	pick := lipgloss.LightDark(dark)
	color := func(light, dark string) lipgloss.Style {
		return lipgloss.NewStyle().Foreground(pick(lipgloss.Color(light), lipgloss.Color(dark)))
	}
	s := styles{
		bar:      lipgloss.NewStyle().Bold(true),
		barDim:   color("244", "245"),
		unread:   color("130", "221").Bold(true),
		dim:      color("246", "243"),
		self:     lipgloss.NewStyle().Bold(true),
		warn:     color("130", "214"),
		bad:      color("124", "203"),
		good:     color("28", "114"),
		waiting:  color("130", "221"),
		divider:  color("61", "110"),
		prompt:   color("61", "110").Bold(true),
		pendings: color("246", "243").Italic(true),
	}
	// Pairs that are told apart on either background, none of them a colour
	// that means something else here.
	for _, pair := range [][2]string{
		{"25", "75"}, {"90", "177"}, {"30", "80"}, {"94", "180"}, {"125", "211"}, {"58", "150"},
		{"55", "141"}, {"23", "116"}, {"89", "175"}, {"64", "149"}, {"18", "111"}, {"166", "216"},
	} {
		s.names = append(s.names, color(pair[0], pair[1]))
	}
	return s
}

// name returns the style of somebody's name: always the same one.
func (s styles) name(user string) lipgloss.Style {
	hash := fnv.New32a()
	_, _ = hash.Write([]byte(user)) // never fails
	return s.names[hash.Sum32()%uint32(len(s.names))]
}
