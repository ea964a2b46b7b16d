# SPDX-License-Identifier: MIT
"""Questions about scenes in varied English, and their answers in whole sentences.

In a phrasing, (a|b|) stands for one of its alternatives and {name} for what is asked about. Answers
that need thought say what they rest on before they conclude. Every kind of question has phrasings
for the training and others, not made from the same patterns, for the score.
"""
import re

import scenes
from scenes import COLOURS, KINDS, POSITIONS, SHAPES, SIZES

NUMBERS = ["no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
ORDINALS = ["first", "second"]
PLURALS = [shape + ("es" if shape.endswith("s") else "s") for shape in SHAPES]

# kind: (phrasings of the training, phrasings of the score)
PHRASINGS = {
    "colour": ([
        "What (colour|color) is the {n}?", "What is the (colour|color) of the {n}?",
        "Which (colour|color) is the {n}?", "(Tell me|Say|Name) the (colour|color) of the {n}.",
        "The {n} has (what|which) (colour|color)?", "The {n} is (what|which) (colour|color)?",
        "(What|Which) (colour|color) does the {n} have?", "What's the (colour|color) of the {n}?",
        "Can you (say|tell me) (which|what) (colour|color) the {n} (is|has)?",
        "In (what|which) (colour|color) is the {n} (|drawn|shown)?",
        "I (want|would like) to know the (colour|color) of the {n}.",
        "Give me the (colour|color) of the {n}.", "(Tell me|Say) what (colour|color) the {n} is.",
        "(Look at|Find) the {n}. (What|Which) (colour|color) is it?",
        "How is the {n} coloured?", "(Colour|Color) of the {n}?",
        "Do you see (which|what) (colour|color) the {n} (is|has)?"],
        ["Please tell me which colour the {n} has.", "Do you know the color of the {n}?",
         "I would like to know what colour the {n} is.", "What color can you see on the {n}?",
         "What colour would you say the {n} is?"]),
    "is_colour": ([
        "Is the {n} {c}?", "Is the (colour|color) of the {n} {c}?", "The {n} is {c}, right?",
        "Would you say (that|) the {n} is {c}?", "Is it true that the {n} is {c}?",
        "Does the {n} have the (colour|color) {c}?", "Is the {n} {c} or not?",
        "(Tell me|Say) (if|whether) the {n} is {c}.", "Can you see (if|whether) the {n} is {c}?",
        "I (want|would like) to know (if|whether) the {n} is {c}."],
        ["Can you tell me if the {n} is {c}?", "Do you see that the {n} is {c}?"]),
    "shape": ([
        "(What|Which) shape is {c}?", "What is the {c} (shape|thing|object|one)?",
        "What is the shape of the {c} (thing|object|one)?", "What (kind|sort) of shape is {c}?",
        "(Tell me|Say|Name) the {c} shape.", "(Tell me|Say) (which|what) shape is {c}.",
        "The {c} (shape|thing|one) is (what|which shape)?", "What's the {c} (shape|thing|object)?",
        "Can you (name|tell me) the shape that is {c}?", "(Which|What) (thing|object) is {c}?",
        "I (want|would like) to know (which|what) shape is {c}.",
        "What shape (has the|is of|does the) {c} (thing|object|one) (|have)?",
        "(Look at|Find) the {c} (thing|object). (What|Which) shape is it?", "What is {c}?",
        "(Which|What) of the (things|objects) is {c}?", "Which one is {c}?",
        "Do you see (which|what) shape is {c}?", "Look at the shapes. Which one is {c}?",
        "Look at (all|) the (shapes|things). What is the {c} one?",
        "In the {pic}, (which|what) (shape|one of the things) is {c}?",
        "What is the name of the {c} one of the shapes?", "One of the shapes is {c}. Which one?",
        "Name the one of the shapes that is {c}."],
        ["Which of the shapes is {c}?", "Tell me what the {c} thing is.",
         "Which kind of shape is the {c} one?", "Can you say what shape the {c} object has?",
         "Tell me the shape of the {c} thing.", "Can you see what the {c} object is?"]),
    "size": ([
        "How (big|large) is the {n}?", "What size is the {n}?", "What is the size of the {n}?",
        "(Tell me|Say|Name) the size of the {n}.", "Is the {n} (small|big) or (large|small)?",
        "Is the {n} small, medium or large?", "What size does the {n} have?",
        "Can you (say|tell me) how (big|large) the {n} is?", "What's the size of the {n}?",
        "(Which|What) size has the {n}?", "I (want|would like) to know the size of the {n}.",
        "(Look at|Find) the {n}. How (big|large) is it?",
        "Do you see how (big|large) the {n} is?"],
        ["Which size is the {n}?", "Tell me how big the {n} is.",
         "Do you know the size of the {n}?"]),
    "where": ([
        "Where is the {n}?", "Where (do|can) you see the {n}?", "Where can I find the {n}?",
        "What is the (position|place) of the {n}?", "(Tell me|Say) where the {n} is.",
        "Where in the {pic} is the {n}?", "Find the {n}.", "Where's the {n}?",
        "In (which|what) (part|place|corner) (|of the {pic}) is the {n}?",
        "Can you (see|say|tell me) where the {n} is?",
        "Where (|exactly) is the {n} (placed|drawn)?",
        "I (want|would like) to know where the {n} is.", "Show me where the {n} is.",
        "At (which|what) (place|position) is the {n}?", "The {n} is where?",
        "(Give|Tell) me the (position|place) of the {n}.",
        "Do you see where the {n} is?"],
        ["In what part of the picture can you see the {n}?", "Can you find the {n}?",
         "Do you know where the {n} is?", "Where would I find the {n} in the image?",
         "Can you say in which place the {n} is?"]),
    "at": ([
        "What is (in|at) the {p}?", "What (do|can) you see (in|at) the {p}?",
        "(Which|What) (thing|object) is (in|at) the {p}?",
        "What's (in|at) the {p} (|of the {pic})?",
        "(Tell me|Say) what is (in|at) the {p}.", "What is there (in|at) the {p} (|of the {pic})?",
        "Name the (thing|object) (in|at) the {p}.", "Look (in|at) the {p}. What is there?",
        "What is (drawn|shown|placed) (in|at) the {p}?",
        "What does the {pic} show (in|at) the {p}?",
        "(In|At) the {p}, what (is there|do you see)?", "What can I find (in|at) the {p}?",
        "I (want|would like) to know what is (in|at) the {p}."],
        ["What object is in the {p} of the picture?", "Can you tell me what is in the {p}?",
         "What do you find in the {p}?", "Please say what you see in the {p}.",
         "Can you see what is drawn in the {p}?"]),
    "rel": ([
        "Is the {a} {r} the {b} (|in the {pic})?", "The {a} is {r} the {b}, (right|correct)?",
        "Would you say (that|) the {a} is {r} the {b}?", "Do you see the {a} {r} the {b}?",
        "(Tell me|Say) (if|whether) the {a} is {r} the {b}.",
        "Is it true that the {a} is {r} the {b}?",
        "Can you see the {a} {r} the {b}?", "Does the {pic} show the {a} {r} the {b}?",
        "I (want|would like) to know (if|whether) the {a} is {r} the {b}.",
        "Is the {a} (placed|drawn|shown) {r} the {b}?",
        "Can you see (if|whether) the {a} is {r} the {b}?",
        "In this {pic}, do you see the {a} {r} the {b}?"],
        ["In the picture, is the {a} {r} the {b}?", "Can you tell me if the {a} is {r} the {b}?",
         "Can you say whether the {a} is {r} the {b}?",
         "Would you say the picture shows the {a} {r} the {b}?"]),
    "relw": ([
        "Where is the {a} (compared (with|to)|relative to|seen from) the {b}?",
        "On (which|what) side of the {b} is the {a}?", "Seen from the {b}, where is the {a}?",
        "How is the {a} placed (compared with|relative to) the {b}?",
        "In (which|what) direction from the {b} is the {a}?",
        "(Tell me|Say) where the {a} is (compared with|relative to) the {b}.",
        "Where do you see the {a} (compared with|relative to) the {b}?",
        "Looking from the {b}, where (is|do you see) the {a}?"],
        ["Compared with the {b}, where is the {a}?",
         "Can you tell me where the {a} is compared with the {b}?",
         "Where would you say the {a} is compared with the {b}?"]),
    "count": ([
        "How many {m} are there (|in the {pic}|in total)?",
        "How many {m} (do|can) you (see|count)?",
        "Count the {m}.", "What is the number of {m}?", "How many {m} are in the {pic}?",
        "(Tell me|Say) how many {m} there are.", "(What|Which) number of {m} (can|do) you see?",
        "How many {m} does the {pic} (show|have)?", "(Tell|Give) me the number of {m}.",
        "Can you (say|tell me) how many {m} there are?", "How many {m}?", "Number of {m}?",
        "I (want|would like) to know how many {m} there are.",
        "Look at the {m}. How many are there?",
        "Please count (|all) the {m}.",
        "Count how many {m} there are.", "Do you see how many {m} there are?"],
        ["Can you count the {m}?", "How many {m} can you find in the picture?",
         "Do you know how many {m} there are?", "Count how many {m} you see.",
         "Can you give me the number of {m}?", "How many {m} would you say there are?"]),
    "exist": ([
        "Is there {a} (|in the {pic})?", "(Do|Can) you see {a} (|in the {pic}|anywhere)?",
        "Does the {pic} (show|have|contain) {a}?", "Can (you|I) find {a}?", "Is {a} in the {pic}?",
        "(Tell me|Say) (if|whether) there is {a}.", "Is {a} (shown|drawn) in the {pic}?",
        "Are you able to see {a}?", "I (want|would like) to know (if|whether) there is {a}.",
        "There is {a}, right?",
        "Can you say (if|whether) there is {a}?"],
        ["Can you tell me if there is {a}?", "Do you find {a} in the picture?",
         "In the image, is there {a}?", "Would you say there is {a}?"]),
    "char": ([
        "(Which|What) {k} is (in the {pic}|shown|there|drawn)?",
        "(Which|What) {k} (do|can) you see?",
        "Read the {k}.", "(Tell me|Say|Name) the {k}.", "What is the {k} (|in the {pic})?",
        "(Which|What) {k} (do|can) you read?", "What {k} (is this|is that|is it)?",
        "What does the {k} say?", "Can you (say|tell me) (which|what) {k} it is?",
        "What's the {k}?",
        "I (want|would like) to know (which|what) {k} it is.", "Which one is the {k}?",
        "(Which|What) {k} does the {pic} show?",
        "Can you say which {k} is shown?", "(Which|What) {k} can I find?"],
        ["Can you read the {k}?", "Tell me which {k} is shown.", "Please read the {k} to me.",
         "What {k} can you find in the picture?",
         "Can you tell me which {k} you see?"]),
    "charc": ([
        "(Which|What) {k} is {c}?", "What is the {c} {k} (|in the {pic})?", "Read the {c} {k}.",
        "(Tell me|Say|Name) the {c} {k}.", "(Which|What) {c} {k} (do|can) you see?",
        "The {c} {k} is (what|which one)?", "(Which|What) {k} is (drawn|shown) in {c}?",
        "Which one is the {c} {k}?", "I (want|would like) to know the {c} {k}."],
        ["Can you read the {c} {k}?", "Tell me which {k} is {c}.",
         "Please read the {c} {k} to me.",
         "Can you see which {k} is {c}?"]),
    "desc": ([
        "What (do|can) you see (|in the {pic}|here)?", "What is (in|on) the {pic}?",
        "What does the {pic} show?", "(Tell me|Say) what you see.", "Describe the {pic}.",
        "Describe what you see.", "Name (all|) the (things|objects) (|in the {pic}).",
        "What's (in|on) the {pic}?", "What is (here|there)?", "What is shown?",
        "Describe this {pic}.",
        "(Which|What) (things|objects) (do|can) you see?", "List (all|) the (things|objects)."],
        ["Can you describe the picture?", "Tell me what is in the image.",
         "What objects are in the picture?",
         "Can you name the things in the picture?"]),
    "more": ([
        "(Which|What) {pic} (has|shows|contains) more {m}?", "Where (are|do you see) more {m}?",
        "In (which|what) {pic} are (there|) more {m}?", "Which of the (two|) {pic}s has more {m}?",
        "Are there more {m} in the first or (in|) the second {pic}?", "Where are there more {m}?",
        "(Tell me|Say) which {pic} has more {m}.",
        "Does the first or the second {pic} have more {m}?",
        "Compare the {m}. Which {pic} has more?",
        "Which has more {m}, the first or the second {pic}?",
        "Can you say which {pic} has more {m}?",
        "Do you see more {m} in the first or in the second {pic}?",
        "Look at both {pic}s. Which has more {m}?",
        "(Please|) compare the two {pic}s. Which one (shows|has) more {m}?",
        "Is it the first or the second {pic} that has more {m}?",
        "I (want|would like) to know which {pic} has more {m}.",
        "(Tell me|Say) in which {pic} you see more {m}."],
        ["Which of the two pictures shows more {m}?", "In which picture do you see more {m}?",
         "Can you tell me which picture has more {m}?",
         "Which of these pictures would you say has more {m}?"]),
    "same": ([
        "Do (both|the|the two) {pic}s (have|show) the same number of {m}?",
        "Is the number of {m} the same in both {pic}s?",
        "Are there equally many {m} in both {pic}s?",
        "Are there as many {m} in the first as in the second {pic}?",
        "Is there the same number of {m} in both {pic}s?",
        "Does the first {pic} have as many {m} as the second (|one|{pic})?",
        "(Tell me|Say) (if|whether) both {pic}s have the same number of {m}.",
        "Can you say (if|whether) the two {pic}s have the same number of {m}?",
        "Look at both {pic}s. Is the number of {m} the same?",
        "I (want|would like) to know (if|whether) both {pic}s have the same number of {m}.",
        "Do you see the same number of {m} in both {pic}s?",
        "Is it true that both {pic}s have the same number of {m}?"],
        ["Is the number of {m} the same in the two pictures?",
         "Can you tell me if both pictures show the same number of {m}?",
         "Would you say both pictures have the same number of {m}?"]),
    "which": ([
        "(Which|What) {pic} (shows|has|contains) {a}?", "In (which|what) {pic} is (there|) {a}?",
        "Which of the (two|) {pic}s (shows|has) {a}?", "In which {pic} (do|can) you see {a}?",
        "(Tell me|Say) which {pic} (shows|has) {a}.",
        "Is there {a} in the first or the second {pic}?",
        "Does the first or the second {pic} (show|have) {a}?",
        "Can you say which {pic} (shows|has) {a}?",
        "I (want|would like) to know which {pic} (shows|has) {a}.",
        "(Tell me|Say) in which {pic} you see {a}.",
        "Is it the first or the second {pic} that (shows|has) {a}?"],
        ["Can you tell me which picture has {a}?", "In which of the two pictures is there {a}?",
         "Which of these pictures shows {a}?",
         "Where can you find {a}, in the first or the second picture?"]),
    "both": ([
        "Is there {a} in both {pic}s?", "Do (both|the|the two) {pic}s (both|) (show|have) {a}?",
        "(Can|Do) you see {a} in both {pic}s?", "Does each {pic} (show|have) {a}?",
        "Is {a} in both {pic}s?", "(Tell me|Say) (if|whether) both {pic}s (show|have) {a}.",
        "Can you say (if|whether) both {pic}s (show|have) {a}?",
        "I (want|would like) to know (if|whether) both {pic}s (show|have) {a}.",
        "Is it true that both {pic}s (show|have) {a}?"],
        ["Do you find {a} in both pictures?", "Can you tell me if there is {a} in both pictures?",
         "Would you say there is {a} in both pictures?"]),
    "outside": ([
        "(What|Where) is the {x}?", "(What|Which) (colour|color) is the {x}?", "Where is the {x}?",
        "How (big|old|tall) is the {x}?", "Is there {ax} (|in the {pic})?",
        "(Do|Can) you see {ax}?", "How many {x}s (are there|do you see)?", "What is the {x} doing?",
        "Who is (in the {pic}|this|that|the {x})?", "What time is it?", "What is the weather like?",
        "What is the name of the {x}?", "Is the {x} (happy|sad|hungry|new|old)?",
        "What is the {x} (wearing|eating|holding|made of)?", "When was (this|the) {pic} taken?",
        "Where was (this|the) {pic} taken?", "Who (took|made|drew) (this|the) {pic}?",
        "How much does the {x} cost?", "Tell me about the {x}.", "What do you think of the {x}?",
        "Why is the {x} there?", "What day is it?", "Is the {x} {r} the {n}?",
        "What is the capital of France?", "What is behind the {x}?", "Does the {pic} show {ax}?"],
        ["Can you tell me where the {x} is?", "Do you find {ax} in the picture?",
         "What colour does the {x} have?", "Can you count the {x}s?"]),
}

NOUNS = ("cat dog bird horse fish car bus train tree flower house window door table chair person "
         "man woman child boy girl baby face hand shoe hat book phone computer cup bottle apple "
         "banana cake pizza ball boat plane bridge road river mountain sky sun moon cloud sea "
         "beach king queen robot clock lamp bed garden city street shop sign animal people "
         "elephant lion tiger mouse cow sheep bear").split()
LEADS = ["Please look at the {pic}.", "Look at the {pic}.", "Hello,", "Hi,", "Hey,", "Please,",
         "Now,", "Okay,", "Quick question:", "One more question:", "And", "So", "Thanks.", "Good.",
         "Here is a question:", "Next:", "Then", "Well,", "I have a question."]
TAILS = ["Please.", "Thank you.", "Thanks."]
IT = {
    "colour": ["(And|) what (colour|color) is it?", "(And|) which (colour|color) does it have?",
               "What is its (colour|color)?", "And its (colour|color)?"],
    "size": ["(And|) how (big|large) is it?", "What is its size?", "(And|) what size is it?",
             "And its size?"],
    "where": ["(And|) where is it?", "Where in the {pic} is it?", "And where do you see it?"],
}
SMALL_TALK = [
    (["(Hello|Hi|Hey)(|!|.|,) (|there|you)(|!|.)", "Good (morning|evening|day)(|!|.)",
      "How are you(|?)"], "Hello! Ask me about a picture."),
    (["(Thanks|Thank you)(| very much| a lot)(|!|.)", "(Great|Good|Nice|Well done)(|!|.)",
      "(Okay|Ok|Bye|Goodbye)(|!|.)"], "You are welcome."),
    (["(Who|What) are you?", "What is your name?", "What can you do?", "Are you a (robot|person)?",
      "What can I ask (|you)?", "How (do|can) you help me?", "Help(|!|.)"],
     "I am a small model, and I answer questions about pictures of shapes, digits and letters."),
]
NO_PICTURE = "I cannot see a picture. Please show me one."
NOT_SEEN = "I cannot see that in the picture."
RELATIONS = {"left": ["left of", "to the left of", "on the left of", "further left than"],
             "right": ["right of", "to the right of", "on the right of", "further right than"],
             "above": ["above", "over", "higher than"],
             "below": ["below", "under", "lower than"]}

# how often a question of a kind is asked, about one picture and about two
WEIGHTS_ONE = dict(colour=8, is_colour=4, shape=10, size=5, where=9, at=8, rel=14, relw=9, count=16,
                   exist=8, char=6, charc=4, desc=5, several=3, outside=4)
WEIGHTS_TWO = dict(more=12, same=9, which=9, both=6, colour=4, count=6, where=2, char=2, exist=2,
                   desc=3, at=2, shape=2)
GROUPS = dict(colour="colour", is_colour="colour or not", shape="shape", where="position",
              at="position", rel="position", relw="position", count="count",
              char="character", charc="character",
              size="size", exist="exists", desc="description", several="description",
              absent="not there", outside="not there", more="two pictures", same="two pictures",
              which="two pictures", both="two pictures", talk="talk")


def choose(rnd, phrasing):
    """One of the alternatives of a phrasing, with tidy spaces."""
    while "(" in phrasing:
        phrasing = re.sub(r"\(([^()]*)\)", lambda m: rnd.choice(m[1].split("|")), phrasing)
    return re.sub(r" +([?.,!]|$)", r"\1", re.sub(" +", " ", phrasing)).strip()


def with_article(name):
    return ("an " if name[0] in "aeiou" else "a ") + name


def name_of(thing):
    if thing.is_shape:
        return SHAPES[thing.kind]
    return ("digit " if thing.is_digit else "letter ") + KINDS[thing.kind]


def full_name(thing):
    return f"{COLOURS[thing.colour]} {name_of(thing)}"


def place_of(thing):
    return POSITIONS[thing.place]


class Asker:
    """Draws questions with answers about one scene or two; `scored`: in the phrasings kept back."""

    def __init__(self, rnd, scored=False):
        self.rnd, self.scored = rnd, scored
        self.it = None  # the thing that the last answer was about

    def ask(self, things, kinds=None):
        """(kind, question, answer) about one scene; kind "absent" where that is the answer."""
        rnd = self.rnd
        weights = WEIGHTS_ONE if kinds is None else dict.fromkeys(kinds, 1)
        while True:
            if kinds is None and self.it and rnd.random() < .2:
                turn = self._about_it()
            else:
                kind = rnd.choices(list(weights), list(weights.values()))[0]
                self.it = None
                turn = getattr(self, "_" + kind)(things)
            if turn:
                return turn

    def ask_two(self, first, second, kinds=None):
        rnd = self.rnd
        weights = WEIGHTS_TWO if kinds is None else dict.fromkeys(kinds, 1)
        while True:
            kind = rnd.choices(list(weights), list(weights.values()))[0]
            self.it = None
            if kind in ("more", "same", "which", "both"):
                turn = getattr(self, "_" + kind)(first, second)
            else:
                turn = self._about_one_of((first, second), kind)
            if turn:
                return turn

    def small_talk(self):
        phrasings, answer = self.rnd.choice(SMALL_TALK)
        return "talk", self._vary(choose(self.rnd, self.rnd.choice(phrasings)), False), answer

    def without_picture(self):
        """A question that needs a picture, where there is none."""
        rnd = self.rnd
        things = [scenes.Thing(rnd.randrange(len(KINDS)), rnd.randrange(8), 0, p, 0, 0, 0)
                  for p in rnd.sample(range(9), 3)]
        return "talk", self.ask(things)[1], NO_PICTURE

    # ------------------------------------------------------------------------------ wording

    def _phrase(self, kind, **slots):
        phrasing = choose(self.rnd, self.rnd.choice(PHRASINGS[kind][self.scored]))
        return self._fill(phrasing, slots)

    def _fill(self, phrasing, slots):
        rnd = self.rnd
        picture = rnd.choices(["picture", "image", "photo"], [6, 3, 1])[0]
        if not self.scored:
            if rnd.random() < .15:
                phrasing = self._lead(phrasing)
            elif rnd.random() < .04:
                phrasing += " " + rnd.choice(TAILS)
            if rnd.random() < .03:
                phrasing = self._mistype(phrasing)
        return self._vary(phrasing.format(pic=picture, **slots))

    def _lead(self, phrasing):
        lead = self.rnd.choice(LEADS)
        if lead[-1] in ".:":
            return lead + " " + phrasing
        if phrasing.startswith("I "):
            return lead + " " + phrasing
        return lead + " " + phrasing[0].lower() + phrasing[1:]

    def _mistype(self, phrasing):
        """Two letters of some word swapped."""
        words = [m for m in re.finditer(r"(?<!\{)\b[a-zA-Z]{3,}\b(?!\})", phrasing)]
        if not words:
            return phrasing
        at = self.rnd.choice(words).start() + 1
        return phrasing[:at] + phrasing[at + 1] + phrasing[at] + phrasing[at + 2:]

    def _vary(self, question, may_drop=True):
        """As people type: small first letter, no mark at the end."""
        rnd = self.rnd
        if self.scored:
            return question
        if rnd.random() < .25:
            question = question[0].lower() + question[1:]
        if rnd.random() < .04:
            question = question.lower()
        if may_drop and question[-1] in "?." and rnd.random() < .2:
            question = question[:-1]
        return question

    def _name(self, thing, things):
        """The shortest name that means only this thing, or None."""
        same = [t for t in things if t.kind == thing.kind]
        if len(same) == 1:
            if thing.is_letter and sum(t.is_letter for t in things) == 1 and self.rnd.random() < .3:
                return "letter"
            if thing.is_digit and sum(t.is_digit for t in things) == 1 and self.rnd.random() < .3:
                return "digit"
            return name_of(thing) if self.rnd.random() < .7 else full_name(thing)
        if sum(t.colour == thing.colour for t in same) == 1:
            return full_name(thing)
        return None

    def _asked(self, name):
        """A name as it may be asked for."""
        if name.startswith("digit") and self.rnd.random() < .3:
            name = name.replace("digit", "number")
        if name[:-1].endswith("letter ") and self.rnd.random() < .15:
            name = name[:-1] + name[-1].lower()
        return name

    def _absent_name(self, things):
        """A name that fits nothing here, often nearly."""
        rnd = self.rnd
        for _ in range(20):
            draw = rnd.random()
            if draw < .45:
                kind = rnd.randrange(len(SHAPES))
                if all(t.kind != kind for t in things):
                    return SHAPES[kind]
            elif draw < .9:
                kind, colour = rnd.randrange(len(SHAPES)), rnd.randrange(len(COLOURS))
                if things and rnd.random() < .7:
                    near = rnd.choice(things)
                    if near.is_shape and rnd.random() < .5:
                        kind = near.kind
                    else:
                        colour = near.colour
                if all((t.kind, t.colour) != (kind, colour) for t in things):
                    return f"{COLOURS[colour]} {SHAPES[kind]}"
            else:
                kind = rnd.randrange(len(SHAPES), len(KINDS))
                if all(t.kind != kind for t in things):
                    return name_of(scenes.Thing(kind, 0, 0, 0, 0, 0, 0))
        return None

    def _absent(self, kind, name, **slots):
        question = self._phrase(kind, **slots)
        return "absent", question, f"I cannot see {with_article(name)} in the picture."

    # ------------------------------------------------------------------- kinds, one picture

    def _unique(self, things, shapes_only=False):
        """A thing with a name of its own, and the name."""
        able = [t for t in things if t.is_shape or not shapes_only]
        for thing in self.rnd.sample(able, len(able)):
            name = self._name(thing, things)
            if name:
                return thing, name
        return None, None

    def _property(self, kind, things, say, shapes_only=False):
        if self.rnd.random() < .17:
            name = self._absent_name(things)
            return name and self._absent(kind, name, n=self._asked(name))
        thing, name = self._unique(things, shapes_only)
        if not thing:
            return None
        self.it = thing, name
        return kind, self._phrase(kind, n=self._asked(name)), say(thing, name)

    def _say_colour(self, thing, name):
        return f"The {name} is {COLOURS[thing.colour]}."

    def _say_size(self, thing, name):
        return f"The {name} is {SIZES[thing.size]}."

    def _say_where(self, thing, name):
        return f"The {name} is in the {place_of(thing)}."

    def _colour(self, things):
        if self.rnd.random() < .17:
            name = self._absent_name(things)
            if name and name.split()[0] not in COLOURS:
                return self._absent("colour", name, n=self._asked(name))
        thing, name = self._unique(things)
        if not thing or name.split()[0] in COLOURS:
            return None
        self.it = thing, name
        return "colour", self._phrase("colour", n=self._asked(name)), self._say_colour(thing, name)

    def _size(self, things):
        return self._property("size", things, self._say_size, True)

    def _where(self, things):
        return self._property("where", things, self._say_where)

    def _about_it(self):
        kind = self.rnd.choice(list(IT))
        thing, name = self.it
        if (kind == "size" and not thing.is_shape) or name.split()[0] in COLOURS:
            self.it = None
            return None
        phrasing = choose(self.rnd, self.rnd.choice(IT[kind]))
        question = self._fill(phrasing[0].upper() + phrasing[1:], {})
        return kind, question, getattr(self, "_say_" + kind)(thing, name)

    def _is_colour(self, things):
        thing, name = self._unique(things)
        if not thing or name.split()[0] in COLOURS:
            return None
        asked = thing.colour if self.rnd.random() < .5 else self.rnd.randrange(len(COLOURS))
        answer = (f"{self._yes(asked == thing.colour).capitalize()}, "
                  f"the {name} is {COLOURS[thing.colour]}.")
        self.it = thing, name
        return "is_colour", self._phrase("is_colour", n=self._asked(name), c=COLOURS[asked]), answer

    def _yes(self, true):
        return "yes" if true else "no"

    def _shape(self, things):
        rnd, used = self.rnd, [t.colour for t in things]
        if rnd.random() < .17:
            free = [c for c in range(len(COLOURS)) if c not in used]
            colour = COLOURS[rnd.choice(free)]
            return self._absent("shape", f"{colour} shape", c=colour)
        single = [t for t in things if t.is_shape and used.count(t.colour) == 1]
        if not single:
            return None
        thing = rnd.choice(single)
        colour = COLOURS[thing.colour]
        self.it = thing, name_of(thing) if self._alone(thing, things) else full_name(thing)
        return ("shape", self._phrase("shape", c=colour),
                f"The {colour} shape is {with_article(SHAPES[thing.kind])}.")

    def _alone(self, thing, things):
        return sum(t.kind == thing.kind for t in things) == 1

    def _at(self, things):
        rnd = self.rnd
        if rnd.random() < .2:
            place = rnd.choice(POSITIONS)
            if any(place_of(t) == place for t in things):
                return None
            return ("absent", self._phrase("at", p=self._asked_place(place)),
                    f"I cannot see anything in the {place}.")
        if not things:
            return None
        thing = rnd.choice(things)
        place = place_of(thing)
        if self._alone(thing, things):
            self.it = thing, name_of(thing)
        return ("at", self._phrase("at", p=self._asked_place(place)),
                f"There is {with_article(full_name(thing))} in the {place}.")

    def _asked_place(self, place):
        rnd = self.rnd
        if self.scored:
            return place
        if place == "middle":
            return rnd.choice(["middle", "middle", "centre", "center"])
        if place.startswith("middle") and rnd.random() < .15:
            return rnd.choice(["centre ", "center "]) + place.split()[1]
        if place.endswith("middle") and rnd.random() < .15:
            return place.split()[0] + rnd.choice([" centre", " center"])
        if "middle" not in place and rnd.random() < .15:
            return place + " corner"
        return place

    def _pair(self, things):
        if len(things) < 2:
            return None
        a, b = self.rnd.sample(things, 2)
        names = self._name(a, things), self._name(b, things)
        return (a, b, *names) if all(names) else None

    def _rel(self, things):
        rnd = self.rnd
        side = rnd.choice(list(RELATIONS))
        relation = rnd.choice(RELATIONS[side])
        if rnd.random() < .12:
            name, (_, other) = self._absent_name(things), self._unique(things)
            names = [name, other]
            rnd.shuffle(names)
            if not all(names):
                return None
            return self._absent("rel", name, a=names[0], b=names[1], r=relation)
        pair = self._pair(things)
        if not pair:
            return None
        a, b, name_a, name_b = pair
        if side in ("left", "right"):
            across = a.place % 3 - b.place % 3
        else:
            across = a.place // 3 - b.place // 3
        if across == 0 and rnd.random() < .7:
            return None
        true = across < 0 if side in ("left", "above") else across > 0
        question = self._phrase("rel", a=self._asked(name_a), b=self._asked(name_b), r=relation)
        return "rel", question, (f"{self._say_relation(*pair)} Is it {side}? "
                                 f"{self._yes(true).capitalize()}.")

    def _relw(self, things):
        pair = self._pair(things)
        if not pair:
            return None
        question = self._phrase("relw", a=self._asked(pair[2]), b=self._asked(pair[3]))
        return "relw", question, self._say_relation(*pair)

    def _say_relation(self, a, b, name_a, name_b):
        rows, columns = a.place // 3 - b.place // 3, a.place % 3 - b.place % 3
        words = (["above"] if rows < 0 else ["below"] if rows else []) + (
            ["left of"] if columns < 0 else ["right of"] if columns else [])
        return (f"The {name_a} is in the {place_of(a)} and the {name_b} is in the {place_of(b)}, "
                f"so it is {' and '.join(words)} the {name_b}.")

    def _set(self, things):
        """(one, many, which things) of a set to count, mostly one that is not empty."""
        rnd = self.rnd
        shapes = [t for t in things if t.is_shape]
        draw = rnd.random()
        if draw < .2:
            return "shape", "shapes", lambda t: t.is_shape
        if draw < .28:
            return rnd.choice([
                ("thing", "things", lambda t: True), ("object", "objects", lambda t: True),
                ("letter", "letters", lambda t: t.is_letter),
                ("digit", "digits", lambda t: t.is_digit)])
        near = rnd.choice(shapes) if shapes and rnd.random() < .9 else None
        kind = near.kind if near else rnd.randrange(len(SHAPES))
        colour = near.colour if near else rnd.randrange(len(COLOURS))
        if draw < .6:
            return SHAPES[kind], PLURALS[kind], lambda t: t.kind == kind
        if draw < .9:
            return (f"{COLOURS[colour]} shape", f"{COLOURS[colour]} shapes",
                    lambda t: t.is_shape and t.colour == colour)
        return (f"{COLOURS[colour]} {SHAPES[kind]}", f"{COLOURS[colour]} {PLURALS[kind]}",
                lambda t: t.kind == kind and t.colour == colour)

    def _say_count(self, things, one, many, belongs, where=""):
        places = [place_of(t) for t in things if belongs(t)]
        if not places:
            return f"I cannot see any {many}{where}."
        return (f"Looking at the {', '.join(places)}, I count {NUMBERS[len(places)]} "
                f"{one if len(places) == 1 else many}{where}.")

    def _count(self, things):
        one, many, belongs = self._set(things)
        total = sum(map(belongs, things))
        if total == 1 and self.rnd.random() < .3:
            return None
        return (("count" if total else "absent"), self._phrase("count", m=many),
                self._say_count(things, one, many, belongs))

    def _exist(self, things):
        if self.rnd.random() < .5:
            name = self._absent_name(things)
            if not name:
                return None
            return ("exist", self._phrase("exist", a=with_article(self._asked(name))),
                    f"No, I cannot see {with_article(name)} in the picture.")
        if not things:
            return None
        thing = self.rnd.choice(things)
        full = self.rnd.random() < .6
        first = next(t for t in things
                     if t.kind == thing.kind and (t.colour == thing.colour or not full))
        name = full_name(thing) if full else name_of(thing)
        return ("exist", self._phrase("exist", a=with_article(self._asked(name))),
                f"Yes, there is {with_article(name)} in the {place_of(first)}.")

    def _characters(self, things):
        letter = self.rnd.random() < .6
        return ("letter" if letter else "digit",
                [t for t in things if (t.is_letter if letter else t.is_digit)])

    def _char(self, things):
        kind, found = self._characters(things)
        asked = "number" if kind == "digit" and self.rnd.random() < .3 else kind
        if not found and self.rnd.random() < .15:
            return self._absent("char", kind, k=asked)
        if len(found) != 1:
            return None
        self.it = found[0], kind
        return "char", self._phrase("char", k=asked), f"The {kind} is {KINDS[found[0].kind]}."

    def _charc(self, things):
        kind, found = self._characters(things)
        asked = "number" if kind == "digit" and self.rnd.random() < .3 else kind
        single = [t for t in found if sum(o.colour == t.colour for o in found) == 1]
        if not single:
            return None
        thing = self.rnd.choice(single)
        colour = COLOURS[thing.colour]
        return ("charc", self._phrase("charc", k=asked, c=colour),
                f"The {colour} {kind} is {KINDS[thing.kind]}.")

    def _list(self, things):
        items = [f"{with_article(full_name(t))} in the {place_of(t)}" for t in things]
        return f"I see {', '.join(items)}."

    def _desc(self, things):
        if len(things) > 5:
            return None
        if not things:
            return "desc", self._phrase("desc"), "I cannot see anything in the picture."
        return "desc", self._phrase("desc"), self._list(things)

    def _several(self, things):
        """A question about one thing where there are several such things."""
        groups = [[t for t in things if t.kind == kind] for kind in {t.kind for t in things}]
        groups = [g for g in groups if 2 <= len(g) <= 4]
        if not groups:
            return None
        group = self.rnd.choice(groups)
        kind = self.rnd.choice(["colour", "where"])
        return "several", self._phrase(kind, n=name_of(group[0])), self._list(group)

    def _outside(self, things):
        thing = self.rnd.choice(NOUNS)
        name = SHAPES[self.rnd.randrange(len(SHAPES))]
        relation = self.rnd.choice(RELATIONS[self.rnd.choice(list(RELATIONS))])
        question = self._phrase("outside", x=thing, ax=with_article(thing), n=name, r=relation)
        return "outside", question, NOT_SEEN

    # ------------------------------------------------------------------ kinds, two pictures

    def _count_both(self, first, second):
        """A set, its sizes and the words that count it in both pictures."""
        one, many, belongs = self._set(first + second)
        sizes, words = [], []
        for ordinal, things in zip(ORDINALS, (first, second)):
            places = [place_of(t) for t in things if belongs(t)]
            sizes.append(len(places))
            if places:
                words.append(f"Looking at the {', '.join(places)}, I count {NUMBERS[len(places)]} "
                             f"in the {ordinal}.")
            else:
                words.append(f"I count none in the {ordinal}.")
        return many, sizes, " ".join(words)

    def _more(self, first, second):
        many, (a, b), words = self._count_both(first, second)
        if (a == b and self.rnd.random() < .6) or a + b == 0:
            return None
        end = (f"So both have the same number of {many}." if a == b
               else f"So the {ORDINALS[b > a]} picture has more {many}.")
        return "more", self._phrase("more", m=many), f"{words} {end}"

    def _same(self, first, second):
        many, (a, b), words = self._count_both(first, second)
        if (a != b and self.rnd.random() < .5) or a + b == 0:
            return None
        return "same", self._phrase("same", m=many), f"{words} So {self._yes(a == b)}."

    def _in_which(self, first, second):
        things = first + second
        if not things:
            return None
        thing = self.rnd.choice(things)
        full = self.rnd.random() < .5
        name = full_name(thing) if full else name_of(thing)
        if self.rnd.random() < .15:
            name = self._absent_name(things) or name

        def shows(scene):
            return any(name in (name_of(t), full_name(t)) for t in scene)

        return name, shows(first), shows(second)

    def _which(self, first, second):
        name, a, b = self._in_which(first, second) or (None, 0, 0)
        if not name or (a and b and self.rnd.random() < .4):
            return None
        name = with_article(name)
        answer = (f"Both pictures show {name}." if a and b else
                  f"The {ORDINALS[b]} picture shows {name}." if a or b else
                  f"I cannot see {name} in the pictures.")
        return "which", self._phrase("which", a=name), answer

    def _both(self, first, second):
        name, a, b = self._in_which(first, second) or (None, 0, 0)
        if not name or (a + b == 1 and self.rnd.random() < .4):
            return None
        name = with_article(name)
        answer = (f"Both pictures show {name}. So yes." if a and b else
                  f"Only the {ORDINALS[b]} picture shows {name}. So no." if a or b else
                  f"I cannot see {name} in the pictures. So no.")
        return "both", self._phrase("both", a=name), answer

    def _about_one_of(self, pictures, kind):
        """A question about one picture, asked of the first or the second of two."""
        at = self.rnd.randrange(2)
        turn = getattr(self, "_" + kind)(pictures[at])
        self.it = None
        if not turn or turn[0] == "outside":
            return None
        kind, question, answer = turn
        where = f"in the {ORDINALS[at]} picture"
        if re.search(r"(picture|image|photo)", question, re.I) or question[-1] not in "?.":
            return None
        if self.rnd.random() < .7 or self.scored:
            question = f"{question[:-1]} {where}{question[-1]}"
        else:
            question = f"{where[0].upper()}{where[1:]}, {question[0].lower()}{question[1:]}"
        if question.count(".") + question.count("?") > 1:
            return None
        return kind, question, answer.replace("in the picture", where)
