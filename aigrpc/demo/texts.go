package demo

// What the companion says. %s is the other's words, a feeling, a topic or a
// name, as the variable's name tells.
var (
	disclosure = "Before we begin: I am a small program that follows simple rules, no language model and no person, and I listen as well as I can."

	reflections = []string{
		"You tell me that %s.",
		"So %s.",
		"What I hear is that %s.",
		"You write that %s.",
	}
	listenings = []string{
		"Thank you for writing that.",
		"I have read what you wrote, and I take it seriously.",
		"I am here, and I am reading along.",
		"I am listening, and there is time.",
	}
	strangeWords = []string{
		"I am sorry, I know no other words than English ones, so I may have missed what you said.",
	}
	namings = []string{
		"There seems to be %s in it.",
		"I think I hear %s in that.",
		"Between the lines I notice %s.",
	}
	advices = []string{
		"I cannot know what is right for you, but I can help you to hear your own thoughts.",
		"That is a real question, and the answer that holds will be one of your own.",
		"You know your life better than I do, so let us look at it together.",
	}
	fillers = []string{
		"Take the time you need; nothing here is in a hurry.",
		"There is no wrong way to tell it, and it need not be in order.",
		"You may leave out whatever you do not want to speak of.",
		"Sometimes it helps to say a thing twice, in other words.",
	}
	closings = []string{
		"What you have written stays in this chat, and you can come back to it whenever you like.",
		"It is all right to leave some things open for a while.",
		"One step after the other is fast enough.",
	}
	questions = []string{
		"What about it is on your mind most at the moment?",
		"How was it for you when that happened?",
		"What would make it a little easier, even for today?",
		"When did you first notice it?",
		"Who else knows how this is for you?",
		"What do you wish somebody understood about it?",
	}
	lightQuestions = []string{
		"What was the best moment of it?",
		"With whom would you like to share it?",
		"What would help it to last a little?",
	}

	greetingReplies = []string{
		"It is good that you are here.",
		"How nice to hear from you.",
	}
	greetingQuestions = []string{
		"How are you today, if you look a little closer than one usually does?",
		"What has been going through your mind today?",
	}
	thanksReplies = []string{
		"You are welcome; it was you who found the words, and that is the greater part.",
		"I am glad if it did you some good to say these things aloud.",
	}
	thanksQuestions = []string{
		"Is there something you would like to keep from this for the next days?",
		"What would you like to do for yourself today?",
	}
	farewellReplies = []string{
		"Take good care of yourself until we write again.",
		"Thank you for the talk; I wish you a gentle rest of the day.",
	}
	farewellQuestions = []string{
		"What small thing could be kind to you before you sleep?",
		"What are you going to do next, just for yourself?",
	}
	selfReplies = []string{
		"As I told you when we began, there is nobody here but a few rules and what you write.",
		"No person sits here, as I said at our beginning, and what I offer is a place to think aloud.",
	}
	selfQuestions = []string{
		"Would it matter to you to speak with somebody of flesh and blood about this?",
		"What made you wonder about that just now?",
	}
	recalls         = []string{"Yes, I have what you wrote in this chat before my eyes."}
	recallsNothing  = []string{"So far I know only what you have written here, and that is still little."}
	recallsName     = []string{"Your name is %s."}
	recallsTopic    = []string{"You spoke of %s."}
	recallQuestions = []string{
		"Which of it shall we go on with?",
		"Is there something important that I have missed?",
	}
	recallsFeeling = []string{"There was %s in what you told me."}

	namesGiven  = []string{"It is good to know your name, %s.", "Then I will call you %s."}
	namesThanks = []string{"Thank you for telling me this, %s.", "I am glad that you go on telling me, %s."}

	againFeelings = []string{
		"The %s was there earlier as well; it seems to stay near you.",
		"Earlier, too, you told me of %s.",
	}
	earlierTopics = []string{
		"Earlier you spoke of %s, and I have not forgotten it.",
		"I still have in mind what you told me earlier of %s.",
	}
	earlierFeelings = []string{
		"Earlier there was %s in what you wrote, and I keep that in mind.",
		"I also remember the %s that you told me of before.",
	}
	earlierCrisis = []string{
		"Earlier you told me that your life had become hard to bear; if that comes back, please call your emergency number or someone you trust at once.",
	}

	crisisFirst = []string{
		"I am glad that you told me this, and it matters what happens to you.",
		"I am a small program, no language model and no person, so please do not stay alone with it.",
		"If you might act on it, call your emergency number now, such as 112, 911 or 999.",
		"A crisis line listens day and night: 988 in the United States and Canada, 116 123 in Britain and Ireland.",
		"Who could be with you now?",
	}
	crisisLater = [][]string{
		{
			"Thank you for saying this aloud; I take it very seriously.",
			"You deserve a human voice now: please call somebody you trust, or a crisis line, such as 988 in the United States and Canada or 116 123 in Britain and Ireland.",
			"If you are in danger at this moment, call 112, 911 or your own emergency number.",
			"Are you safe where you are?",
		},
		{
			"I am still here, and I am worried about you.",
			"Please put away what you could hurt yourself with, go to where other people are, and tell one of them how bad it is.",
			"Your emergency number, such as 112, 911 or 999, and the crisis lines, 988 or 116 123, answer at any hour.",
			"Whom can you call right now?",
		},
	}
)
