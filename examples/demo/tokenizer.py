# SPDX-License-Identifier: MIT
"""A small tokenizer of Gemma 3's make: SentencePiece BPE over words, with bytes for all else.

Every word that the questions and answers are made of is one piece, with its leading space as
U+2581; so are the steps that merge a word out of its letters.
"""
import functools
import re

import questions
import scenes

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6  # tokenizer.ggml.token_type
SPECIALS = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>",
            "<start_of_image>", "<end_of_image>"]
SOFT = "<image_soft_token>"  # the last id, where it cannot be drawn
NEWLINE_RUNS = 8
SPACE = "\u2581"


def _phrases():
    """All text that the questions and answers are made of, without its alternatives."""
    q = questions
    for phrasings in q.PHRASINGS.values():
        yield from phrasings[0] + phrasings[1]
    for phrasings in q.IT.values():
        yield from phrasings
    for phrasings, answer in q.SMALL_TALK:
        yield from phrasings + [answer]
    for words in (q.LEADS, q.TAILS, *q.RELATIONS.values(), [q.NO_PICTURE, q.NOT_SEEN]):
        yield from words


def _words():
    """The words, as (text, weight): those inside sentences, then those that may begin one."""
    inside, first = {"pictures", "images", "photos", "picture", "image", "photo"}, set()
    for phrase in _phrases():
        plain = re.sub(r"\{\w+\}", " ", phrase)
        inside.update(w.lower() for w in re.findall(r"[A-Za-z]+", plain))
        starts = re.findall(r"^[\W]*((?:\w+\|)*\w+)|[.:?] ([A-Z]\w*)", plain)
        first.update(w for pair in starts for s in pair if s for w in s.split("|"))
        first.update(re.findall(r"\b[A-Z][a-z]+", plain))
    for group in (questions.NUMBERS, questions.ORDINALS, scenes.COLOURS, scenes.SHAPES,
                  questions.PLURALS, scenes.SIZES, scenes.POSITIONS, questions.NOUNS,
                  "centre center corner number digit letter shape object thing digits letters "
                  "numbers looking at i count both yes so it and none more there show shows only "
                  "same cannot see any anything not of the in a an no".split()):
        inside.update(w for words in group for w in words.split())
    inside.update(noun + "s" for noun in questions.NOUNS)
    first |= {"Looking", "Both", "No", "Yes", "So", "There", "The", "I", "You", "Hello"}
    words = {SPACE + w for w in inside} | {"user", "model"}
    for word in first:
        words |= {word.lower(), word.capitalize(), SPACE + word.capitalize()}
    words |= {SPACE + c for c in scenes.DIGITS + scenes.LETTERS + ["I", "O"]}
    words |= {SPACE + c.lower() for c in scenes.LETTERS}
    return sorted(w for w in words if len(w) > 1)


class Tokenizer:
    def __init__(self):
        specials = [(s, UNKNOWN if s == "<unk>" else CONTROL) for s in SPECIALS]
        runs = [("\n" * n, USER_DEFINED) for n in range(1, NEWLINE_RUNS + 1)]
        in_bytes = [(f"<0x{b:02X}>", BYTE) for b in range(256)]
        letters = [SPACE] + [chr(c) for c in range(33, 127)]
        self.order = {}  # of the merge that gives a piece
        self._train(_words())
        pieces = [(p, NORMAL) for p in list(self.order) + letters]
        self.tokens = specials + runs + in_bytes + pieces + [(SOFT, CONTROL)]
        self.ids = {text: i for i, (text, _) in enumerate(self.tokens)}
        first = self.ids[pieces[0][0]]
        self.scores = [float(first - i) if kind == NORMAL else -1000. if kind != BYTE else 0.
                       for i, (_, kind) in enumerate(self.tokens)]
        self._added = re.compile("(" + "|".join(
            re.escape(t) for t, k in sorted(self.tokens, key=lambda t: -len(t[0]))
            if k in (CONTROL, UNKNOWN, USER_DEFINED)) + ")")

    def _train(self, words):
        """Adds merges, the most common pair first, until every word is one piece."""
        split = {word: list(word) for word in words}
        while True:
            pairs = {}
            for parts in split.values():
                for pair in zip(parts, parts[1:]):
                    pairs[pair] = pairs.get(pair, 0) + 1
            if not pairs:
                return
            piece = "".join(max(pairs, key=lambda p: (pairs[p], p)))
            self.order[piece] = len(self.order)
            for word in split:
                if piece in word:
                    split[word] = self._merge(word)

    def _merge(self, chunk):
        """BPE of text without added tokens: the earliest piece, then the longest left half."""
        parts = list(chunk)
        while True:
            found = [(self.order[a + b], -len(a), i) for i, (a, b) in
                     enumerate(zip(parts, parts[1:])) if a + b in self.order]
            if not found:
                return parts
            at = min(found)[2]
            parts[at:at + 2] = [parts[at] + parts[at + 1]]

    @functools.lru_cache(maxsize=50000)
    def _encode_chunk(self, chunk):
        ids = []
        for part in self._merge(chunk):
            if part in self.ids:
                ids.append(self.ids[part])
            else:
                ids += [self.ids[f"<0x{b:02X}>"] for b in part.encode()]
        return ids

    def encode(self, text):
        """Ids of a text in which special tokens are what they look like, without <bos>."""
        ids = []
        for segment in self._added.split(text):
            if self._added.fullmatch(segment):
                ids.append(self.ids[segment])
                continue
            # no piece has a space but in front, so what is between spaces is merged on its own
            for chunk in re.findall(f"{SPACE}?[^{SPACE}]+|{SPACE}", segment.replace(" ", SPACE)):
                ids += self._encode_chunk(chunk)
        return ids

    def decode(self, ids):
        data = b""
        for i in ids:
            text, kind = self.tokens[i]
            if kind == BYTE:
                data += bytes([int(text[3:5], 16)])
            elif kind != CONTROL:
                data += text.replace(SPACE, " ").encode()
        return data.decode(errors="replace")

    def meanings(self):
        """(row of the codebook, ids of the words that mean it) pairs."""
        def ids(*texts):
            return [self.ids[SPACE + t] for t in texts]

        rows = [ids(s, p) for s, p in zip(scenes.SHAPES, questions.PLURALS)]
        rows += [ids(d) for d in scenes.DIGITS] + [ids(c, c.lower()) for c in scenes.LETTERS]
        rows += [ids(c) for c in scenes.COLOURS] + [ids(s) for s in scenes.SIZES]
        return list(enumerate(rows, 1))

    def same_words(self):
        """Lists of ids that are one word, in small and capital letters, with a space or not."""
        groups = {}
        for text, i in self.ids.items():
            if self.tokens[i][1] == NORMAL and text.lstrip(SPACE).isalpha() and len(text) > 2:
                groups.setdefault(text.lstrip(SPACE).lower(), []).append(i)
        return [group for group in groups.values() if len(group) > 1]
