package speech

import (
	"strings"
	"unicode"
)

// stops reports whether a rune ends sentences.
func stops(r rune) bool {
	switch r {
	case '.', '!', '?', '…', '‼', '‽', '⁇', '⁈', '⁉', '؟', '۔', '։', '።', '፧', '။', '។':
		return true
	}
	return wide(r) && !pauses(r)
}

// wide reports whether a mark is of a script that sets no white space behind it.
func wide(r rune) bool { return strings.ContainsRune("。！？｡．।॥、，；：", r) }

// pauses reports whether a rune ends a part of a sentence.
func pauses(r rune) bool { return strings.ContainsRune(",;:–—،؛、，；：", r) }

// closes reports whether a rune closes a quotation, a bracket or an emphasis
// behind the end of a sentence.
func closes(r rune) bool {
	return strings.ContainsRune("\"'”’“‘»«›‹)]}*_~`」』）】》〉］", r)
}

// opensToo reports whether a quotation mark that closes one in some languages
// opens it in others.
func opensToo(r rune) bool { return r == '“' || r == '‘' }

// opens reports whether a rune may stand before the first word of a sentence.
func opens(r rune) bool {
	return strings.ContainsRune("\"'”’“‘„‚»«›‹([{*_~`¿¡「『（【《〈［", r)
}

// decorates reports whether a rune is of an emoji.
func decorates(r rune) bool { return unicode.Is(unicode.So, r) || joins(r) }

const zeroWidthJoiner = '\u200d'

// joins reports whether a rune makes one character with the one before it.
func joins(r rune) bool {
	return unicode.Is(unicode.M, r) || unicode.Is(unicode.Sk, r) && r > 0x1f000 || r == zeroWidthJoiner
}

// ideographic reports whether words of a rune's script follow each other without
// white space.
func ideographic(r rune) bool {
	return unicode.In(r, unicode.Han, unicode.Hiragana, unicode.Katakana)
}

// A set is a list of words to look a word up in.
func set(words string) map[string]bool {
	m := make(map[string]bool)
	for w := range strings.FieldsSeq(words) {
		m[w] = true
	}
	return m
}

// The words before a full stop that does not end the sentence, in lower case.
var (
	// Something always follows.
	openAbbreviations = set(`dr mr mrs ms mx prof st mt ft gen col sgt capt lt cpl cmdr adm maj rev hon pres gov sen rep supt
		vs viz cf approx dept est messrs mme mlle
		hr fr hrn frl dipl ing ca bzw bzgl bspw beisp vgl evtl ggf sog inkl exkl zzgl abzgl einschl insb lt geb gest verh
		sra srta dra ud uds pág sig sigra dott dhr mevr bijv np tzn tzw`)
	// The sentence goes on if a small letter follows.
	endingAbbreviations = set(`etc usw ecc inc ltd co corp bros jr sr esq al ave blvd mio mrd tsd std itd
		a.m p.m u.a u.ä o.ä u.v.m u.s.w e.v v.chr n.chr`)
	// A number follows.
	numberAbbreviations = set(`no nos nr nro art abs fig figs sec vol ch chap kap tab abb pp para eq bd aufl ziff
		jan feb mar apr jun jul aug sep sept oct okt nov dec dez`)
)

var (
	// What German ordinals count, and what stands before them.
	counted = set(`Januar Jänner Februar März April Mai Juni Juli August September Oktober November Dezember
		Jahrhundert Jahrhunderts Jahrtausend Quartal Semester Stock Klasse Platz Mal Geburtstag`)
	ordinalLeads = set(`der die das dem den des am im vom zum zur beim ab bis seit jeder jede jedes jeden ihr ihre sein seine
		mein meine unser unsere ein eine einen einem`)
	// The words that seldom belong to the name before them.
	starters = set(`The This That These Those There Then They He She It We You My Our Your His Her But And Or So If In On At
		As For From To What When Where Why Who How Is Are Was Were Do Does Did Can Could Will Would Not No Yes Also
		However Now Here Der Die Das Dies Diese Dieser Dieses Er Sie Es Ich Wir Ihr Du Und Aber Oder Wenn Dann Da
		Was Wie Wo Warum Wer Ist Sind War Kann Auch Nicht Nein Ja Doch Im Am`)
)
