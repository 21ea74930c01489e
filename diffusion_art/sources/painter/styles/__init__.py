"""The painter's repertoire: sixteen manners, each a function of a canvas and a brief.

Artists are listed for their manner only: nothing here copies a work, every picture is synthetic.
"""

from __future__ import annotations

from diffusion_art.sources.painter.brief import Style
from diffusion_art.sources.painter.styles import dabs, figures, gestures, optical, planes, repeats, scenes

_LEFT_TO_RIGHT = ("Left", "Centre", "Right")
_HORIZONS = ("High Horizon", "Low Horizon")

STYLES: tuple[Style, ...] = (
    Style(
        "De Stijl",
        "abstract",
        ("Piet Mondrian", "Theo van Doesburg", "Bart van der Leck"),
        (1917, 1938),
        ("Composition", "Grid", "Lozenge"),
        ("Few Planes", "Many Planes"),
        planes.de_stijl,
    ),
    Style(
        "Suprematism",
        "abstract",
        ("Kazimir Malevich", "El Lissitzky", "Lyubov Popova", "Olga Rozanova"),
        (1913, 1925),
        ("Bars", "Circle", "Cross", "Wedge"),
        ("Rising", "Falling"),
        planes.suprematism,
    ),
    Style(
        "Bauhaus",
        "design",
        ("Anni Albers", "Gunta Stolzl", "Herbert Bayer", "Joost Schmidt"),
        (1919, 1933),
        ("Quarter Circles", "Triangles", "Weaving"),
        ("Three by Three", "Four by Four"),
        repeats.bauhaus,
    ),
    Style(
        "Pop Art",
        "figurative",
        ("Andy Warhol", "Roy Lichtenstein", "Robert Indiana"),
        (1958, 1972),
        ("Flowers", "Hearts", "Stars", "Apples"),
        ("Four Times", "Nine Times"),
        repeats.pop_art,
    ),
    Style(
        "Op Art",
        "abstract",
        ("Victor Vasarely", "Richard Anuszkiewicz", "Julian Stanczak"),
        (1955, 1975),
        ("Sphere", "Waves", "Funnel", "Fold"),
        _LEFT_TO_RIGHT,
        optical.op_art,
    ),
    Style(
        "Orphism",
        "abstract",
        ("Robert Delaunay", "Sonia Delaunay", "Frantisek Kupka"),
        (1911, 1938),
        ("Disc", "Two Suns", "Rhythm"),
        _LEFT_TO_RIGHT,
        optical.orphism,
    ),
    Style(
        "Futurism",
        "abstract",
        ("Giacomo Balla", "Umberto Boccioni", "Gino Severini", "Luigi Russolo"),
        (1909, 1918),
        ("Street Lamp", "Speed", "Dancer"),
        _LEFT_TO_RIGHT,
        optical.futurism,
    ),
    Style(
        "Color Field",
        "abstract",
        ("Mark Rothko", "Clyfford Still", "Barnett Newman"),
        (1948, 1970),
        ("Two Bands", "Three Bands", "Window"),
        ("Tall", "Wide"),
        optical.color_field,
    ),
    Style(
        "Pointillism",
        "landscape",
        ("Georges Seurat", "Paul Signac", "Henri-Edmond Cross"),
        (1884, 1910),
        ("Trees", "River", "Sail", "Haystacks"),
        _HORIZONS,
        dabs.pointillism,
    ),
    Style(
        "Impressionism",
        "seascape",
        ("Claude Monet", "Berthe Morisot", "Eugene Boudin", "Alfred Sisley"),
        (1868, 1905),
        ("Sunrise", "Sails", "Harbour"),
        _HORIZONS,
        dabs.impressionism,
    ),
    Style(
        "Post-Impressionism",
        "landscape",
        ("Vincent van Gogh", "Emile Bernard", "Cuno Amiet"),
        (1885, 1905),
        ("Starry Night", "Wheat Field", "Cypresses"),
        ("Wide Sky", "Wide Land"),
        gestures.post_impressionism,
    ),
    Style(
        "Abstract Expressionism",
        "abstract",
        ("Jackson Pollock", "Lee Krasner", "Joan Mitchell", "Franz Kline"),
        (1946, 1962),
        ("Drip", "Gesture"),
        ("All Over", "Open"),
        gestures.abstract_expressionism,
    ),
    Style(
        "Ukiyo-e",
        "landscape",
        ("Katsushika Hokusai", "Utagawa Hiroshige", "Utagawa Kuniyoshi"),
        (1820, 1858),
        ("Mountain", "Moon", "Rising Sun"),
        _LEFT_TO_RIGHT,
        scenes.ukiyo_e,
    ),
    Style(
        "Fauvism",
        "still life",
        ("Henri Matisse", "Andre Derain", "Raoul Dufy"),
        (1904, 1912),
        ("Vase of Flowers", "Fruit Bowl", "Jug"),
        _LEFT_TO_RIGHT,
        scenes.fauvism,
    ),
    Style(
        "Cubism",
        "figurative",
        ("Georges Braque", "Juan Gris", "Pablo Picasso", "Jean Metzinger"),
        (1908, 1922),
        ("Guitar", "Bottle", "Portrait"),
        _LEFT_TO_RIGHT,
        figures.cubism,
    ),
    Style(
        "Surrealism",
        "abstract",
        ("Joan Miro", "Jean Arp", "Yves Tanguy"),
        (1924, 1950),
        ("Creature", "Dialogue", "Constellation"),
        _LEFT_TO_RIGHT,
        figures.surrealism,
    ),
)
