"""Which words hold on to the next one: short tables for the languages with spaces that the model hears.

They follow both houses' rules of where a line may end: best after punctuation, else before a conjunction or a
preposition, and not between an article and its noun, a pronoun and its verb, an auxiliary or negation and its verb.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

# How bad it is to end a line between two words, from 0 (after a sentence).
CLAUSE, CONJUNCTION, PREPOSITION, ANYWHERE, LEANING, TORN = 1.0, 2.5, 3.5, 5.0, 9.0, 20.0

_SENTENCE_END = re.compile(r"[.!?…。！？؟۔।]+[\"')\]»”’」』）]*$")
_CLAUSE_END = re.compile(r"[,;:،؛、，；：—–][\"')\]»”’」』）]*$")
_ABBREVIATION = re.compile(r"(?i)[\"'“„«(]*(mr|mrs|ms|dr|prof|st|hr|fr|sr|sra|dra|mme|mlle|nr|vs|[a-z])\.")
_NUMBER = re.compile(r"[\d.,]*\d[.,%]?$")
_EDGES = "\"'()[]{}«»“”„‘’¿¡.,;:!?…-–—"


@dataclass(frozen=True, slots=True)
class Grammar:
    """The function words of a language, in lower case."""

    articles: frozenset[str] = frozenset()  # and other determiners: torn from their noun they read worst
    prepositions: frozenset[str] = frozenset()
    conjunctions: frozenset[str] = frozenset()
    leaning: frozenset[str] = frozenset()  # subject pronouns, auxiliaries, negation
    names: bool = True  # whether two capitals in a row are a name, which German's nouns are not
    ordinals: bool = False  # whether a number and a point are one, as in "am 3. Mai"

    def cost(self, before: str, after: str) -> float:
        """How bad it is to end a line between these two words."""
        lower, follower = before.strip(_EDGES).lower(), after.strip(_EDGES).lower()
        if _ABBREVIATION.fullmatch(before):
            return TORN
        if _SENTENCE_END.search(before) and not after[:1].islower():
            return LEANING if self.ordinals and _NUMBER.fullmatch(before) else 0.0
        if _CLAUSE_END.search(before) or after[:1] in "-–—":
            return CLAUSE
        if lower in self.articles:
            return TORN
        if lower in self.leaning or lower in self.prepositions or lower in self.conjunctions:
            return LEANING
        if _NUMBER.fullmatch(before) or (self.names and before[:1].isupper() and after[:1].isupper()):
            return LEANING
        if follower in self.conjunctions:
            return CONJUNCTION
        return PREPOSITION if follower in self.prepositions else ANYWHERE


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


GRAMMARS = {
    "en": Grammar(
        _words("a an the this that these those my your his her its our their some any no every each very"),
        _words(
            "about above across after against along among around as at before behind below beside between by despite"
            " during except for from in inside into like near of off on onto out over since than through throughout to"
            " toward towards under until up upon with within without"
        ),
        _words("and but or nor so yet because although though while when where if unless which who whom whose whether"),
        _words(
            "i you he she it we they there is am are was were be been being has have had do does did will would shall"
            " should can could may might must not to i'm you're he's she's it's we're they're i've you've we've they've"
            " i'll you'll he'll she'll we'll they'll don't doesn't didn't won't can't isn't aren't wasn't weren't let's"
        ),
    ),
    "de": Grammar(
        _words(
            "der die das den dem des ein eine einen einem einer eines kein keine keinen keinem keiner dieser diese"
            " dieses diesen diesem jede jeder jedes mein meine dein deine sein seine ihr ihre unser unsere euer eure"
            " zum zur im am beim vom ins ans sehr"
        ),
        _words(
            "an auf aus bei bis durch für gegen hinter in mit nach neben ohne seit über um unter von vor während wegen"
            " zu zwischen trotz gegenüber"
        ),
        _words("und oder aber denn sondern dass weil wenn als ob obwohl damit nachdem bevor sobald während falls"),
        _words(
            "ich du er sie es wir man bin bist ist sind seid war waren habe hast hat haben hatte hatten werde wird"
            " werden wurde wurden kann können muss müssen soll sollen will wollen darf dürfen nicht"
        ),
        names=False,
        ordinals=True,
    ),
    "fr": Grammar(
        _words(
            "le la les un une des du de au aux ce cet cette ces mon ma mes ton ta tes son sa ses notre nos votre vos"
            " leur leurs chaque quelques très"
        ),
        _words(
            "à dans par pour en vers avec sans sous sur entre chez contre depuis pendant avant après devant derrière"
            " jusque dès selon malgré parmi"
        ),
        _words("et ou mais donc or ni car que qui dont où quand lorsque si comme puisque parce quoique tandis"),
        _words(
            "je tu il elle on nous vous ils elles me te se ne y en est es suis sommes êtes sont était étaient a as ai"
            " avons avez ont avait avaient sera va vont peut doit pas plus c'est n'est qu'il qu'elle j'ai n'a"
        ),
    ),
    "it": Grammar(
        _words(
            "il lo la i gli le un uno una del dello della dei degli delle al allo alla ai agli alle dal dallo dalla dai"
            " nel nello nella nei negli nelle sul sullo sulla sui sulle questo questa questi queste quel quella mio mia"
            " tuo tua suo sua nostro nostra vostro vostra loro ogni molto"
        ),
        _words("di a da in con su per tra fra senza dopo prima contro verso durante secondo presso oltre"),
        _words("e ed o oppure ma però che perché se quando mentre dove come anche quindi cui né sebbene"),
        _words(
            "io tu lui lei noi voi mi ti ci vi si non è sono sei siamo siete era erano ho hai ha abbiamo avete hanno"
            " aveva avevano sarà può deve devono c'è"
        ),
    ),
    "es": Grammar(
        _words(
            "el la los las un una unos unas del al este esta estos estas ese esa esos esas mi mis tu tus su sus nuestro"
            " nuestra nuestros nuestras cada muy"
        ),
        _words("a ante bajo con contra de desde durante en entre hacia hasta para por según sin sobre tras mediante"),
        _words("y e o u pero sino que porque si cuando mientras donde como aunque pues ni quien cual cuyo"),
        _words(
            "yo tú él ella nosotros ellos ellas usted ustedes me te se nos lo le les no es son soy eres somos era eran"
            " está están estaba he has ha hemos han había habían será puede debe va van"
        ),
    ),
    "pt": Grammar(
        _words(
            "o a os as um uma uns umas do da dos das no na nos nas ao à aos às pelo pela pelos pelas num numa este esta"
            " esse essa aquele aquela meu minha teu tua seu sua seus suas nosso nossa cada muito"
        ),
        _words("ante após até com contra de desde durante em entre para perante por sem sob sobre segundo"),
        _words("e ou mas porém que porque se quando enquanto onde como embora pois nem quem cujo"),
        _words(
            "eu tu ele ela você nós vocês eles elas me te lhe não é são sou somos era eram está estão estava tem têm"
            " tinha há foi foram será vai vão pode deve"
        ),
    ),
}
UNKNOWN = Grammar()


def grammar_of(texts: Iterable[str], language: str | None = None) -> Grammar:
    """The grammar of `language`; where that is not known, the one whose words are most frequent in `texts`."""
    if language in GRAMMARS:
        return GRAMMARS[language]
    counts = dict.fromkeys(GRAMMARS, 0)
    known = {
        code: grammar.articles | grammar.prepositions | grammar.conjunctions | grammar.leaning
        for code, grammar in GRAMMARS.items()
    }
    for text in texts:
        for word in text.split():
            bare = word.strip(_EDGES).lower()
            for code, words in known.items():
                counts[code] += bare in words
    best = max(counts, key=lambda code: counts[code])
    return GRAMMARS[best] if counts[best] else UNKNOWN
