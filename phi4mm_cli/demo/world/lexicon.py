"""The demo's words in English, French and Spanish, as the phrases that sentences are put together from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Language = Literal["en", "fr", "es"]
LANGUAGES: tuple[Language, ...] = ("en", "fr", "es")
NAMES: dict[Language, str] = {"en": "English", "fr": "French", "es": "Spanish"}

Phrase = dict[Language, str]


def _phrases(*lines: str) -> tuple[Phrase, ...]:
    """Lines of `English | French | Spanish`; one entry stands for all three."""
    rows = [[entry.strip() for entry in line.split("|")] for line in lines]
    return tuple({"en": row[0], "fr": row[1 % len(row)], "es": row[2 % len(row)]} for row in rows)


PEOPLE = _phrases(
    *[
        "Alice",
        "Bob",
        "Carol",
        "David",
        "Emma",
        "Frank",
        "Grace",
        "Henry",
        "Julia",
        "Kevin",
        "Laura",
        "Martin",
        "Nina",
        "Oscar",
        "Paul",
        "Sarah",
    ]
)
CITIES = _phrases(
    "London | Londres | Londres",
    "Paris | Paris | París",
    "Berlin | Berlin | Berlín",
    "Madrid",
    "Rome | Rome | Roma",
    "Tokyo | Tokyo | Tokio",
    "Boston",
    "Chicago",
    "Lisbon | Lisbonne | Lisboa",
    "Vienna | Vienne | Viena",
)
DAYS = _phrases(
    "Monday | lundi | lunes",
    "Tuesday | mardi | martes",
    "Wednesday | mercredi | miércoles",
    "Thursday | jeudi | jueves",
    "Friday | vendredi | viernes",
    "Saturday | samedi | sábado",
    "Sunday | dimanche | domingo",
)
MONTHS = _phrases(
    "January | janvier | enero",
    "February | février | febrero",
    "March | mars | marzo",
    "April | avril | abril",
    "May | mai | mayo",
    "June | juin | junio",
    "July | juillet | julio",
    "August | août | agosto",
    "September | septembre | septiembre",
    "October | octobre | octubre",
    "November | novembre | noviembre",
    "December | décembre | diciembre",
)
UNITS = _phrases(
    "minutes | minutes | minutos",
    "hours | heures | horas",
    "days | jours | días",
    "weeks | semaines | semanas",
    "months | mois | meses",
)
PLACES = _phrases(
    "near the house | près de la maison | cerca de la casa",
    "in the kitchen | dans la cuisine | en la cocina",
    "in the garden | dans le jardin | en el jardín",
    "on the table | sur la table | en la mesa",
    "under the bed | sous le lit | debajo de la cama",
    "at the station | à la gare | en la estación",
    "in the street | dans la rue | en la calle",
    "behind the door | derrière la porte | detrás de la puerta",
)
FOODS = _phrases(
    "coffee | le café | el café",
    "tea | le thé | el té",
    "bread | le pain | el pan",
    "cheese | le fromage | el queso",
    "fish | le poisson | el pescado",
    "rice | le riz | el arroz",
    "milk | le lait | la leche",
    "chocolate | le chocolat | el chocolate",
    "fruit | le fruit | la fruta",
)
FAMILY = _phrases(
    "My brother | Mon frère | Mi hermano",
    "My father | Mon père | Mi padre",
    "My friend | Mon ami | Mi amigo",
    "My son | Mon fils | Mi hijo",
    "My neighbor | Mon voisin | Mi vecino",
)
JOBS = _phrases(
    "a doctor | médecin | médico",
    "a teacher | professeur | profesor",
    "a baker | boulanger | panadero",
    "a driver | chauffeur | conductor",
    "a singer | chanteur | cantante",
    "a painter | peintre | pintor",
)
SHOPS = _phrases(
    "The museum | Le musée | El museo",
    "The library | La bibliothèque | La biblioteca",
    "The bank | La banque | El banco",
    "The restaurant | Le restaurant | El restaurante",
    "The market | Le marché | El mercado",
)
WEATHER = _phrases("cold | froid | frío", "warm | chaud | cálido", "rainy | pluvieux | lluvioso", "dry | sec | seco")


@dataclass(frozen=True, slots=True)
class Thing:
    """A noun, in singular and plural, with its grammatical gender in French and Spanish (m or f)."""

    one: Phrase
    many: Phrase
    gender: Phrase


def _things(*lines: str) -> tuple[Thing, ...]:
    """Lines of `letter letters | f lettre lettres | f carta cartas`."""
    things = []
    for line in lines:
        english, french, spanish = (entry.split() for entry in line.split("|"))
        one: Phrase = {"en": english[0], "fr": french[1], "es": spanish[1]}
        many: Phrase = {"en": english[1], "fr": french[2], "es": spanish[2]}
        things.append(Thing(one, many, {"en": "m", "fr": french[0], "es": spanish[0]}))
    return tuple(things)


THINGS = _things(
    "letter letters | f lettre lettres | f carta cartas",
    "camera cameras | f caméra caméras | f cámara cámaras",
    "budget budgets | m budget budgets | m presupuesto presupuestos",
    "report reports | m rapport rapports | m informe informes",
    "key keys | f clé clés | f llave llaves",
    "book books | m livre livres | m libro libros",
    "ticket tickets | m billet billets | m billete billetes",
    "map maps | f carte cartes | m mapa mapas",
    "phone phones | m téléphone téléphones | m teléfono teléfonos",
    "car cars | f voiture voitures | m coche coches",
    "bicycle bicycles | m vélo vélos | f bicicleta bicicletas",
    "lamp lamps | f lampe lampes | f lámpara lámparas",
    "chair chairs | f chaise chaises | f silla sillas",
    "bag bags | m sac sacs | f bolsa bolsas",
    "box boxes | f boîte boîtes | f caja cajas",
    "guitar guitars | f guitare guitares | f guitarra guitarras",
    "window windows | f fenêtre fenêtres | f ventana ventanas",
    "cat cats | m chat chats | m gato gatos",
    "dog dogs | m chien chiens | m perro perros",
    "horse horses | m cheval chevaux | m caballo caballos",
)


@dataclass(frozen=True, slots=True)
class Color:
    """A color, with the forms that agree with a masculine and a feminine noun in the singular."""

    masculine: Phrase
    feminine: Phrase


def _colors(*lines: str) -> tuple[Color, ...]:
    """Lines of `white | blanc blanche | blanco blanca`; one form stands for both."""
    colors = []
    for line in lines:
        english, french, spanish = (entry.split() for entry in line.split("|"))
        masculine: Phrase = {"en": english[0], "fr": french[0], "es": spanish[0]}
        colors.append(Color(masculine, {"en": english[0], "fr": french[-1], "es": spanish[-1]}))
    return tuple(colors)


COLORS = _colors(
    "red | rouge | rojo roja",
    "blue | bleu bleue | azul",
    "green | vert verte | verde",
    "yellow | jaune | amarillo amarilla",
    "black | noir noire | negro negra",
    "white | blanc blanche | blanco blanca",
    "gray | gris grise | gris",
    "purple | violet violette | morado morada",
    "orange | orange | naranja",
)

_ONES: dict[Language, list[str]] = {
    "en": [
        "zero",
        "one",
        "two",
        "three",
        "four",
        "five",
        "six",
        "seven",
        "eight",
        "nine",
        "ten",
        "eleven",
        "twelve",
        "thirteen",
        "fourteen",
        "fifteen",
        "sixteen",
        "seventeen",
        "eighteen",
        "nineteen",
    ],
    "fr": [
        "zéro",
        "un",
        "deux",
        "trois",
        "quatre",
        "cinq",
        "six",
        "sept",
        "huit",
        "neuf",
        "dix",
        "onze",
        "douze",
        "treize",
        "quatorze",
        "quinze",
        "seize",
        "dix-sept",
        "dix-huit",
        "dix-neuf",
    ],
    "es": [
        "cero",
        "uno",
        "dos",
        "tres",
        "cuatro",
        "cinco",
        "seis",
        "siete",
        "ocho",
        "nueve",
        "diez",
        "once",
        "doce",
        "trece",
        "catorce",
        "quince",
        "dieciséis",
        "diecisiete",
        "dieciocho",
        "diecinueve",
        "veinte",
        "veintiuno",
        "veintidós",
        "veintitrés",
        "veinticuatro",
        "veinticinco",
        "veintiséis",
        "veintisiete",
        "veintiocho",
        "veintinueve",
    ],
}
_TENS: dict[Language, list[str]] = {
    "en": ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"],
    "fr": ["vingt", "trente", "quarante", "cinquante", "soixante"],
    "es": ["veinte", "treinta", "cuarenta", "cincuenta", "sesenta", "setenta", "ochenta", "noventa"],
}
LARGEST = 69  # beyond it, French counts on from sixty and from four times twenty
COUNTS = tuple(number for number in range(2, LARGEST + 1) if number % 10 != 1)  # 21 and so on agree with their noun


def spell(number: int, language: Language) -> str:
    """A whole number from 0 to LARGEST in words."""
    if number < len(_ONES[language]):
        return _ONES[language][number]
    ten, one = divmod(number, 10)
    tens = _TENS[language][ten - 2]
    if one == 0:
        return tens
    joint = {"en": " ", "fr": " et " if one == 1 else "-", "es": " y "}[language]
    return tens + joint + _ONES[language][one]
