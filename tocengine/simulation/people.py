"""Owns the invented people and places of the simulation. Any likeness to real ones is chance."""

import random
from dataclasses import dataclass, field
from datetime import date, timedelta

FAMILY = (
    "ABERNATHY BELLWETHER CASTELLANO DUVERNAY ELLINGSEN FAIRWEATHER GALLOWGLASS HOLLOWAY IVERSEN JANKOWIAK KESTREL "
    "LINDQUIST MARCHETTI NIGHTINGALE OKONKWO PEMBERTON QUILLFEATHER ROSENDAHL SATTERTHWAITE THORNBURY UNDERHILL "
    "VANDERMEER WHITLOCK YARROW ZELENKA O'MALLEY PEÑA BRÜGGEMANN"
).split()
GIVEN_F = "ADA BEATRIX CLEMENTINE DELPHINE EUDORA FLORA GRETA HESTER IMOGEN JUNIPER LOIS MABEL NORA OPAL".split()
GIVEN_M = "ALBERT BERTRAM CASPAR DOUGLAS EDMUND FELIX GUSTAV HORACE IRVING JASPER LIONEL MILO OSCAR RUFUS".split()
STREETS = ("12 Alder Row", "48 Birch Hollow", "7 Copper Lane", "301 Dovetail St", "95 Ember Ct", "16 Foxglove Way")
TOWNS = (("Utica", "13501"), ("Rome", "13440"), ("Oneida", "13421"), ("Herkimer", "13350"))


def npi(base: int) -> str:
    """A National Provider Identifier with a right check digit (Luhn over 80840 + nine digits).

    `base` below 100,000 gives a number in a range that has not been issued.
    """
    stem = f"1999{base:05d}"
    total = 0
    for index, digit in enumerate(reversed("80840" + stem)):
        value = int(digit) * (2 if index % 2 == 0 else 1)
        total += value - 9 if value > 9 else value
    return stem + str(-total % 10)


@dataclass(frozen=True)
class Clinician:
    """A practitioner of the simulation."""

    npi: str
    family: str
    given: str


@dataclass(frozen=True)
class Person:
    """A patient of the simulation."""

    mrn: str
    family: str
    given: str
    sex: str
    birth_date: date
    street: str
    town: str
    postal_code: str
    phone: str
    pcp: Clinician | None = None


@dataclass
class Population:
    """Draws people who differ in number, so that two draws are never the same patient."""

    seed: int
    first_number: int = 1
    _count: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        """Seeds the draw: the same seed gives the same people."""
        self._random = random.Random(self.seed)

    def person(self, pcp: Clinician | None = None) -> Person:
        """One more patient, elderly as most who go to post-acute care."""
        draw = self._random
        number = self.first_number + self._count
        self._count += 1
        sex = draw.choice("FM")
        town, postal_code = draw.choice(TOWNS)
        return Person(
            mrn=f"{number:07d}",
            family=draw.choice(FAMILY),
            given=draw.choice(GIVEN_F if sex == "F" else GIVEN_M),
            sex=sex,
            birth_date=date(1930, 1, 1) + timedelta(days=draw.randrange(12_000)),
            street=draw.choice(STREETS),
            town=town,
            postal_code=postal_code,
            phone=f"315555{draw.randrange(10_000):04d}",
            pcp=pcp,
        )
