package demo

// A feeling is one that the companion can name.
type feeling struct {
	noun  string
	light bool     // good to feel
	words []string // words and phrases that tell of it, in lower case
	heard []string // what is said to it
}

// A topic is something that people talk about.
type topic struct {
	label string // "you spoke of …"
	words []string
	ask   []string // questions that lead on
}

var feelings = []feeling{
	{"sadness", false, []string{"sad", "sadness", "unhappy", "crying", "cry", "cried", "tears", "miserable", "depressed", "heartbroken", "feel down", "feeling down", "feel low", "feeling low", "hopeless"}, []string{
		"Sadness asks for room, and here it may have as much as it needs.",
		"That sounds sad, and it makes sense that it weighs on you.",
		"It is all right to be sad about this, for as long as it takes.",
	}},
	{"worry", false, []string{"worried", "worry", "worries", "worrying", "anxious", "anxiety", "nervous", "afraid", "scared", "fear", "panic", "panicking", "dread", "terrified", "frightened"}, []string{
		"Worry can be loud, all the more at night or when one carries it alone.",
		"Not knowing how it will turn out is hard to bear.",
		"It is no wonder that this makes you uneasy.",
	}},
	{"anger", false, []string{"angry", "anger", "furious", "annoyed", "frustrated", "frustrating", "irritated", "resentful", "rage", "so mad", "am mad", "i'm mad"}, []string{
		"Anger often stands guard over something that matters to you.",
		"I can see why that would make somebody angry.",
		"You do not have to be polite about it here.",
	}},
	{"loneliness", false, []string{"lonely", "loneliness", "isolated", "left out", "feel alone", "all alone", "so alone", "feeling alone", "nobody to talk to", "no friends"}, []string{
		"Feeling alone with something makes it twice as heavy.",
		"Loneliness hurts, even in the middle of other people.",
		"I am glad that you said it, for it is not easy to say that one is lonely.",
	}},
	{"tiredness", false, []string{"tired", "exhausted", "exhausting", "drained", "weary", "worn out", "burned out", "burnt out", "burnout", "no energy"}, []string{
		"You sound worn out, as if it had been too much for too long.",
		"Being tired to the bone makes every small thing larger.",
		"Rest may be what all of this asks for first.",
	}},
	{"pressure", false, []string{"stressed", "stress", "stressful", "overwhelmed", "overwhelming", "pressure", "swamped", "too much for me", "can't cope"}, []string{
		"That is a lot to hold at the same time.",
		"With so much pulling at you it is hard to take a breath.",
		"No one can do everything at once, even if everything asks for it.",
	}},
	{"shame", false, []string{"ashamed", "shame", "guilty", "guilt", "embarrassed", "embarrassing", "humiliated", "regret", "my fault"}, []string{
		"It takes courage to speak of something that one would rather hide.",
		"You seem to be hard on yourself here, harder than on a friend, perhaps.",
		"What happened is a part of you, and by far not the whole.",
	}},
	{"hurt", false, []string{"hurt", "hurts", "betrayed", "rejected", "ignored", "insulted", "cheated on me", "lied to me"}, []string{
		"That must have hurt, most of all from somebody who counts.",
		"A hurt like that does not go away by being sensible about it.",
		"You had hoped for something better than that, and rightly so.",
	}},
	{"grief", false, []string{"grief", "grieving", "mourning", "bereaved", "i miss her", "i miss him", "i miss them"}, []string{
		"Grief has its own clock, and nobody else can set it.",
		"So much love goes into missing someone.",
		"There is no right way to grieve, there is only yours.",
	}},
	{"uncertainty", false, []string{"confused", "confusing", "torn", "unsure", "uncertain", "undecided", "don't know what to do", "feel lost", "feeling lost", "feel stuck", "feeling stuck", "stuck"}, []string{
		"Standing between two ways is tiring in itself.",
		"It need not be clear yet; saying it aloud often sorts it a little.",
		"You do not have to decide anything while we talk.",
	}},
	{"emptiness", false, []string{"empty", "numb", "bored", "pointless", "meaningless"}, []string{
		"When everything is flat, even small things cost strength.",
		"Feeling little can be a way of having felt too much.",
		"That sounds grey, and as if something were missing that used to be there.",
	}},
	{"envy", false, []string{"jealous", "jealousy", "envious", "envy"}, []string{
		"Envy often points to something that one longs for.",
		"That is a feeling few people admit, and nearly all of them know.",
	}},
	{"joy", true, []string{"happy", "happiness", "glad", "excited", "exciting", "joy", "delighted", "cheerful", "wonderful", "amazing", "in love"}, []string{
		"How good to read that; it sounds light and warm.",
		"That is worth staying with for a moment.",
		"One can hear that it does you good.",
	}},
	{"pride", true, []string{"proud", "pride", "i did it", "i passed", "got the job", "got promoted"}, []string{
		"You have every reason to be pleased with yourself.",
		"That did not come by itself; you did it.",
	}},
	{"gratitude", true, []string{"grateful", "gratitude", "thankful", "blessed"}, []string{
		"It is a good thing to notice what one has been given.",
		"Thankfulness like that is a quiet kind of happiness.",
	}},
	{"relief", true, []string{"relieved", "relief", "calm", "calmer", "peaceful", "feel better", "feeling better"}, []string{
		"What a relief it must be to have some ground under your feet.",
		"It is good that it has become a little easier.",
	}},
	{"hope", true, []string{"hopeful", "optimistic", "looking forward"}, []string{
		"Hope is a fine thing to have along on the way.",
		"It sounds as if a window stood open somewhere.",
	}},
}

// topics are in the order in which they are asked after.
var topics = []topic{
	{"somebody you lost", []string{"died", "death", "dead", "funeral", "passed away", "lost my mother", "lost my father", "lost my dog", "lost my cat"}, []string{
		"Would you like to tell me a little about who they were?",
		"What do you miss most?",
	}},
	{"someone you love", []string{"girlfriend", "boyfriend", "husband", "wife", "partner", "relationship", "marriage", "divorce", "breakup", "broke up", "my ex", "dating"}, []string{
		"What would you like the two of you to understand about each other?",
		"What do you need most from the other one now?",
	}},
	{"your children", []string{"son", "daughter", "child", "children", "kids", "baby", "pregnant"}, []string{
		"What do you wish for them, and what for yourself?",
		"Who looks after you while you look after the little ones?",
	}},
	{"your family", []string{"family", "mother", "mom", "mum", "father", "dad", "parents", "sister", "brother", "grandmother", "grandfather", "aunt", "uncle"}, []string{
		"How has it been between you in your family until now?",
		"Who in your family sees how this is for you?",
	}},
	{"your friends", []string{"friend", "friends", "friendship", "best friend", "roommate", "flatmate"}, []string{
		"What has this friendship been to you so far?",
		"What would you say to your friend, if it could not go wrong?",
	}},
	{"your studies", []string{"school", "university", "college", "exam", "exams", "test", "teacher", "class", "homework", "thesis", "grades", "studying", "studies"}, []string{
		"What depends on it for you, beyond the marks?",
		"Which part of the studying feels heaviest?",
	}},
	{"your work", []string{"work", "job", "boss", "manager", "colleague", "colleagues", "coworker", "coworkers", "office", "career", "promotion", "fired", "interview"}, []string{
		"What is it about the work that takes most out of you?",
		"When you think of the next working day, what comes up first?",
	}},
	{"money", []string{"money", "debt", "debts", "rent", "bills", "loan", "afford", "salary", "broke"}, []string{
		"Which of these money matters presses most at the moment?",
		"Is there someone with whom you can look at the figures calmly?",
	}},
	{"your health", []string{"health", "ill", "illness", "sick", "doctor", "hospital", "pain", "diagnosis", "cancer", "surgery", "therapy", "medication"}, []string{
		"How are you being looked after, by doctors and by the people around you?",
		"What does this change in your days?",
	}},
	{"your sleep", []string{"sleep", "sleeping", "insomnia", "can't sleep", "awake", "nightmare", "nightmares"}, []string{
		"What goes through your mind when you lie awake?",
		"How are the evenings before such nights?",
	}},
	{"your animal", []string{"dog", "cat", "puppy", "kitten", "pet"}, []string{
		"What is it like, the company of your animal?",
		"What does the animal notice of how you are?",
	}},
	{"what is to come", []string{"future", "plans", "decision", "decide", "choice", "next year"}, []string{
		"If it could go as you wish, how would it look in a year?",
		"Which of the possible ways makes you curious, and which only tired?",
	}},
	{"your home", []string{"moving", "moved", "apartment", "flat", "house", "neighbour", "neighbours", "neighbor", "neighbors", "homesick", "new city"}, []string{
		"What makes a place a home for you?",
		"What do you miss of where you were, and what not at all?",
	}},
}

// crisis holds what somebody says whose life may be in danger. An alarm too
// many costs an answer that is more careful than it had to be.
var crisis = []string{
	"suicide", "suicidal", "kill myself", "killing myself", "killed myself", "end my life", "ending my life",
	"take my life", "take my own life", "taking my own life", "end it all", "ending it all", "want to die", "wanted to die",
	"wish i was dead", "wish i were dead", "wish i had never been born", "better off dead", "better off without me",
	"don't want to live", "do not want to live", "don't want to be alive", "don't want to exist",
	"don't want to be here anymore", "don't want to wake up", "no reason to live", "nothing to live for",
	"can't go on living", "hurt myself", "hurting myself", "harm myself", "harming myself", "self harm", "selfharm",
	"cut myself", "cutting myself", "overdose",
}

// negations turn a feeling that follows them closely into one that is not there.
var negations = set("not", "never", "no", "isn't", "wasn't", "don't", "didn't", "doesn't", "without", "hardly", "aren't", "weren't")

// notNames are words after "my name is" that are none.
var notNames = set("not", "no", "a", "an", "the", "on", "in", "of", "mud", "nobody", "what", "whatever", "unimportant", "irrelevant", "secret", "none", "back", "when", "if", "later", "maybe")

var (
	greetings = set("hi", "hello", "hey", "hallo", "good", "morning", "evening", "afternoon", "day", "there", "how", "are", "you", "greetings")
	thanks    = set("thank", "thanks", "you", "so", "very", "much", "a", "lot", "for", "listening", "that", "this", "helps", "helped", "ok", "okay")
	farewells = set("bye", "goodbye", "good", "night", "see", "you", "later", "tomorrow", "soon", "i", "have", "to", "go", "must", "now", "ok", "okay", "thanks")
)

func set(words ...string) map[string]bool {
	m := make(map[string]bool, len(words))
	for _, w := range words {
		m[w] = true
	}
	return m
}
