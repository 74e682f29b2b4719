"""Which language a text is in, judged by its letters and its commonest words.

This is evidence and no more: seven languages in Latin letters are told apart by a dozen short words each, others by
their script alone (Cyrillic counts as one). A text with few letters, or with few of those words, is not judged. Rows
with two languages, as translations have, count as the one with more words.
"""

import re

LETTERS = 1000  # of a text that are looked at
FEWEST_LETTERS, FEWEST_WORDS = 12, 3

# What is not Latin, by ranges of letters. Kana before Han: Japanese has both.
SCRIPTS = {
    "Cyrillic": "\u0400-\u052f",
    "Greek": "\u0370-\u03ff",
    "Arabic": "\u0600-\u06ff\u0750-\u077f",
    "Hebrew": "\u0590-\u05ff",
    "Devanagari": "\u0900-\u097f",
    "Bengali": "\u0980-\u09ff",
    "Tamil": "\u0b80-\u0bff",
    "Thai": "\u0e00-\u0e7f",
    "Korean": "\uac00-\ud7af\u1100-\u11ff",
    "Japanese": "\u3040-\u30ff",
    "Chinese": "\u4e00-\u9fff",
}
NOT_LATIN = re.compile(f"[{''.join(SCRIPTS.values())}]")
SCRIPT_LETTERS = {name: re.compile(f"[{letters}]") for name, letters in SCRIPTS.items()}
LETTER = re.compile(r"[^\W\d_]")
WORD = re.compile(r"[^\W\d_]+")

# Words that are common in one language and rare in the others.
WORDS = {
    "English": "the of and to is that it with for are this what was be you have from which they how",
    "German": "der das und ist nicht mit ein eine auf für von dem zu sich auch wie wird sind werden den",
    "French": "le les des est et une dans pour que qui du pas sur avec ce au sont vous nous être",
    "Spanish": "el los las y una por con para es del como más qué su se está lo son pero muy",
    "Italian": "il di che è un una gli non sono con della nel alla più anche questo lo ed si",
    "Portuguese": "o os um ser não para com é em do da no na mais como você são ao pelo seu",
    "Dutch": "het een van en niet is op te dat voor met zijn wat maar ook deze naar wordt aan",
}
LANGUAGES_OF: dict[str, tuple[str, ...]] = {}
for _language, _words in WORDS.items():
    for _word in _words.split():
        LANGUAGES_OF[_word] = (*LANGUAGES_OF.get(_word, ()), _language)
LANGUAGES = ("", *WORDS, *SCRIPTS)


def language(text: str) -> str:
    """One of LANGUAGES; empty when the text does not show which."""
    text = text[:LETTERS]
    letters = len(LETTER.findall(text))
    if letters < FEWEST_LETTERS:
        return ""
    foreign = len(NOT_LATIN.findall(text))
    if 2 * foreign > letters:
        counts = {name: len(pattern.findall(text)) for name, pattern in SCRIPT_LETTERS.items()}
        if 10 * counts["Japanese"] > counts["Chinese"] > 0:
            return "Japanese"
        return max(counts, key=lambda name: counts[name])
    found = dict.fromkeys(WORDS, 0)
    for word in WORD.findall(text.casefold()):
        for name in LANGUAGES_OF.get(word, ()):
            found[name] += 1
    best, second = sorted(found.values(), reverse=True)[:2]
    return max(found, key=lambda name: found[name]) if best >= FEWEST_WORDS and best > second else ""
