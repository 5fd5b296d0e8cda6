"""The words of the demo's little world.

Every line of a table is a chain that names one idea from specific to general: `>` leads to a
hypernym, and `/` separates words that mean the same. The text before `|` is the chain's group. Two
chains of one group exclude each other (a man is not a woman); chains of different groups do not (a
man may be a baker). An action's group says where it happens: in, out or any.
"""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Chain:
    """One idea: `levels` from specific to general, each a tuple of words that mean the same."""

    group: str
    levels: tuple[tuple[str, ...], ...]

    @property
    def names(self) -> frozenset[str]:
        """Each level's first word. Two chains meet at a level whose name they share."""
        return frozenset(level[0] for level in self.levels)


def read_table(table: str) -> tuple[Chain, ...]:
    """Parse a table in the format above into its chains, in order."""
    return tuple(_read_line(line) for line in table.strip().splitlines())


def _read_line(line: str) -> Chain:
    group, _, chain = line.partition("|")
    levels = tuple(tuple(word.strip() for word in level.split("/")) for level in chain.split(">"))
    return Chain(group.strip(), levels)


PEOPLE = read_table("""
sex | man/guy/gentleman > adult/grown-up > person/human being
sex | woman/lady > adult/grown-up > person/human being
sex | boy/lad > child/kid > person/human being
sex | girl/schoolgirl > child/kid > person/human being
job | chef/cook > kitchen worker > person/human being
job | waiter/server > restaurant employee > person/human being
job | nurse > medical worker > person/human being
job | doctor/physician > medical worker > person/human being
job | surgeon > medical worker > person/human being
job | baker > food maker > person/human being
job | butcher > food maker > person/human being
job | carpenter/joiner > craftsperson > person/human being
job | potter > craftsperson > person/human being
job | tailor > craftsperson > person/human being
job | painter > artist > person/human being
job | sculptor > artist > person/human being
job | dancer > performer > person/human being
job | clown > performer > person/human being
job | actor > performer > person/human being
job | juggler > performer > person/human being
job | swimmer > athlete/sportsperson > person/human being
job | runner > athlete/sportsperson > person/human being
job | gymnast > athlete/sportsperson > person/human being
job | boxer/fighter > athlete/sportsperson > person/human being
job | skier > athlete/sportsperson > person/human being
job | farmer > land worker > person/human being
job | gardener > land worker > person/human being
job | fisher > outdoor worker > person/human being
job | builder > construction worker > person/human being
job | plumber > tradesperson > person/human being
job | electrician > tradesperson > person/human being
job | mechanic > tradesperson > person/human being
job | soldier > uniformed worker > person/human being
job | police officer/cop > uniformed worker > person/human being
job | firefighter > uniformed worker > person/human being
job | sailor > uniformed worker > person/human being
job | teacher/instructor > school worker > person/human being
job | librarian > library worker > person/human being
job | student/pupil > learner > person/human being
job | scientist/researcher > scholar > person/human being
job | tourist/sightseer > traveller > person/human being
job | hiker/rambler > traveller > person/human being
job | pilot > flight worker > person/human being
job | bride > wedding guest > person/human being
""")

ANIMALS = read_table("""
animal | puppy > dog/hound > animal/creature
animal | poodle > dog/hound > animal/creature
animal | terrier > dog/hound > animal/creature
animal | sheepdog/collie > dog/hound > animal/creature
animal | kitten > cat/feline > animal/creature
animal | tabby > cat/feline > animal/creature
animal | foal > horse > animal/creature
animal | pony > horse > animal/creature
animal | stallion > horse > animal/creature
animal | parrot > bird > animal/creature
animal | duck > bird > animal/creature
animal | goose > bird > animal/creature
animal | eagle > bird > animal/creature
animal | calf > cow > animal/creature
animal | lamb > sheep > animal/creature
animal | goat > farm animal > animal/creature
animal | pig/hog > farm animal > animal/creature
animal | monkey > wild animal > animal/creature
animal | bear > wild animal > animal/creature
animal | fox > wild animal > animal/creature
animal | rabbit/bunny > small mammal > animal/creature
animal | squirrel > small mammal > animal/creature
""")

ACTIONS = read_table("""
any | strumming a guitar > playing a guitar > playing an instrument > making music/performing a tune
any | playing a violin/fiddling > playing an instrument > making music/performing a tune
any | banging on drums/drumming > playing an instrument > making music/performing a tune
any | blowing a trumpet > playing an instrument > making music/performing a tune
any | singing a ballad > singing/using the voice > making music/performing a tune
any | waltzing > dancing > moving to music
any | dancing the tango > dancing > moving to music
in | frying eggs > cooking/making a meal > preparing food
in | boiling pasta > cooking/making a meal > preparing food
in | grilling fish > cooking/making a meal > preparing food
in | kneading dough > baking > preparing food
in | icing a cake/frosting a cake > baking > preparing food
any | slicing tomatoes > cutting vegetables > preparing food
any | peeling carrots > handling vegetables > preparing food
any | munching an apple > eating fruit > eating/having a bite
any | biting into a peach > eating fruit > eating/having a bite
any | devouring a burger > eating fast food > eating/having a bite
any | nibbling a biscuit > eating a snack > eating/having a bite
any | sipping coffee > having a hot drink > drinking something
any | sipping tea > having a hot drink > drinking something
any | gulping lemonade > having a cold drink > drinking something
any | reading a novel > reading a book > reading
any | reading a newspaper/studying the daily news > reading
any | writing a letter > writing/putting words on paper
any | writing a poem > writing/putting words on paper
any | sketching a portrait > drawing a picture > making art
any | painting a landscape > painting a picture > making art
any | carving a statue > shaping a figure > making art
in | typing on a laptop > using a computer > using a machine
in | coding on a computer > using a computer > using a machine
in | sewing a dress > working with cloth
in | ironing a shirt > working with cloth
any | knitting a scarf > working with wool
in | mopping the floor > cleaning/tidying up
in | dusting the shelves > cleaning/tidying up
in | scrubbing the dishes/washing plates > cleaning/tidying up
any | sweeping the ground > cleaning/tidying up
any | wiping a window > cleaning/tidying up
any | napping/taking a nap/dozing > sleeping/slumbering > resting
any | snoring > sleeping/slumbering > resting
any | repairing a bicycle/mending a bike > fixing something/making a repair
any | repairing a radio > fixing something/making a repair
any | repairing an engine > fixing something/making a repair
any | building a wall > constructing something
any | assembling a shelf > constructing something
any | hammering a nail > using a tool
any | sawing a plank > using a tool
out | jogging > running > exercising/working out
out | sprinting/dashing > running > exercising/working out
in | lifting weights > training > exercising/working out
any | doing push-ups > training > exercising/working out
any | stretching > doing yoga > exercising/working out
out | kicking a football > playing football > playing a sport
out | hitting a tennis ball > playing tennis > playing a sport
any | dribbling a basketball > playing basketball > playing a sport
out | swinging a golf club > playing golf > playing a sport
any | throwing a baseball > playing baseball > playing a sport
any | playing chess/moving chess pieces > playing a board game > playing a game
any | dealing cards > playing cards > playing a game
out | paddling a canoe > steering a boat > travelling
out | rowing a dinghy > steering a boat > travelling
out | riding a bicycle/cycling > travelling
out | riding a scooter > travelling
out | driving a tractor > operating a vehicle > travelling
out | driving a truck/steering a lorry > operating a vehicle > travelling
out | strolling > walking/going on foot > travelling
out | hiking > walking/going on foot > travelling
out | climbing a ladder > climbing/clambering up
out | climbing a tree > climbing/clambering up
out | watering roses > gardening/tending plants
out | planting seeds > gardening/tending plants
out | raking leaves > gardening/tending plants
any | taking a photo/snapping a picture > using a camera
any | filming a video > using a camera
any | chatting on the phone > talking/speaking
any | giving a speech > talking/speaking
any | telling a story > talking/speaking
any | buying vegetables > shopping/making a purchase
any | buying flowers > shopping/making a purchase
any | selling jewellery > doing business
any | selling newspapers > doing business
any | juggling balls > performing a trick/entertaining people
any | juggling torches > performing a trick/entertaining people
any | weeping > crying/shedding tears
any | laughing/giggling
""")

ANIMAL_ACTIONS = read_table("""
any | chewing a bone > eating/having a bite
any | nibbling hay > eating/having a bite
any | gobbling seeds > eating/having a bite
any | lapping milk > drinking something
any | drinking water > drinking something
any | napping/taking a nap/dozing > sleeping/slumbering > resting
any | snoring > sleeping/slumbering > resting
out | galloping > running > moving fast
out | sprinting/dashing > running > moving fast
any | fetching a stick > playing/having fun
any | rolling a ball > playing/having fun
any | chasing a butterfly > playing/having fun
any | tugging a rope > playing/having fun
out | paddling > swimming > moving in water
out | splashing > bathing > moving in water
any | scratching the ground > digging
out | burying a nut > digging
any | licking a paw > grooming/cleaning itself
any | howling > making noise/being loud
any | growling > making noise/being loud
out | jumping over a fence > jumping/leaping
any | jumping through a hoop > jumping/leaping
out | climbing a tree > climbing/clambering up
""")

PLACES = read_table("""
in | in a bakery > in a shop/in a store > indoors/inside
in | in a bookshop > in a shop/in a store > indoors/inside
in | in a florist's > in a shop/in a store > indoors/inside
in | in a supermarket > in a shop/in a store > indoors/inside
in | in a kitchen > in a home/in a house > indoors/inside
in | in a bedroom > in a home/in a house > indoors/inside
in | in a living room/in a lounge > in a home/in a house > indoors/inside
in | in a basement/in a cellar > in a home/in a house > indoors/inside
in | in a classroom > in a school > indoors/inside
in | in a laboratory/in a lab > in a school > indoors/inside
in | in a ward > in a hospital/in a clinic > indoors/inside
in | in a cafe/in a coffee house > indoors/inside
in | in a library > indoors/inside
in | in a museum > indoors/inside
in | in a theatre/in a playhouse > indoors/inside
in | in a gym/in a fitness room > indoors/inside
in | in a workshop > indoors/inside
in | in a barn > in a farm building > indoors/inside
in | in a stable > in a farm building > indoors/inside
in | in an office > indoors/inside
in | in a warehouse > indoors/inside
out | on a beach/on the sand > by the sea > outdoors/outside
out | on a pier > by the sea > outdoors/outside
out | in a harbour > by the sea > outdoors/outside
out | in a park > in a green space > outdoors/outside
out | in a garden/in a backyard > in a green space > outdoors/outside
out | in a meadow > in a field > outdoors/outside
out | in an orchard > on a farm > outdoors/outside
out | in a vineyard > on a farm > outdoors/outside
out | in a forest/in the woods > in nature > outdoors/outside
out | on a mountain > in nature > outdoors/outside
out | in a desert > in nature > outdoors/outside
out | by a lake > near water > outdoors/outside
out | by a river/by a stream > near water > outdoors/outside
out | on a pavement/on a sidewalk > on a street > outdoors/outside
out | in an alley > on a street > outdoors/outside
out | on a bridge > outdoors/outside
out | on a rooftop > outdoors/outside
out | at a street market > outdoors/outside
out | in a stadium > on sports grounds > outdoors/outside
out | on a tennis court > on sports grounds > outdoors/outside
out | at a campsite > outdoors/outside
""")

COLOURS = read_table("""
colour | scarlet > red
colour | crimson > red
colour | navy > blue
colour | turquoise > blue
colour | olive > green
colour | lime > green
colour | lemon > yellow
colour | golden > yellow
colour | lilac > purple
colour | violet > purple
colour | charcoal > grey
colour | silver > grey
colour | black
colour | white
colour | orange
colour | pink/rosy
colour | brown
""")

GARMENTS = read_table("""
worn | cap > hat
worn | straw hat > hat
worn | beret > hat
worn | helmet
worn | parka > coat
worn | raincoat > coat
worn | jacket
worn | blazer > jacket
worn | sweater/jumper > top
worn | blouse > top
worn | T-shirt/tee > top
worn | vest > top
worn | apron
worn | scarf
worn | uniform
worn | costume > outfit
worn | robe
worn | jeans > trousers/pants
worn | shorts > trousers/pants
worn | sneakers/trainers > shoes
worn | sandals > shoes
worn | boots
worn | gloves
""")

LOOKS = read_table("""
age | young/youthful
age | old/elderly
size | tall
size | short
hair | bald
hair | blond/fair-haired
hair | dark-haired
hair | red-haired/ginger
""")

ANIMAL_LOOKS = read_table("""
fur | brown
fur | black
fur | white
fur | grey
fur | spotted
size | big/large
size | small/little
state | wet/soaked
state | dry
""")

TIMES = read_table("""
time | at dawn/at sunrise > in the morning
time | after breakfast > in the morning
time | at noon/at midday > in the daytime
time | after lunch > in the afternoon
time | at sunset/at dusk > in the evening
time | after dinner > in the evening
time | at midnight > at night/after dark
""")

WEATHER = read_table("""
weather | in the rain > in wet weather
weather | in a thunderstorm > in wet weather
weather | in the snow > in cold weather
weather | in a frost > in cold weather
weather | in the sunshine > in fine weather
weather | under a blue sky > in fine weather
weather | in thick fog
weather | in a strong wind
""")

COMPANY = read_table("""
company | alone/all by themselves
company | with a friend/with a pal > with someone/in company
company | with a neighbour > with someone/in company
company | with a cousin > with a relative > with someone/in company
company | with an uncle > with a relative > with someone/in company
company | with a crowd > with many others > with someone/in company
company | with a classmate > with someone/in company
""")

MOODS = read_table("""
mood | happily/cheerfully
mood | sadly/gloomily
mood | angrily/furiously
mood | calmly/peacefully
mood | nervously/anxiously
mood | proudly
""")

PURPOSES = read_table("""
 | to win a prize
 | to earn money/to make a living
 | to pass the time
 | to keep a promise
 | to learn a skill
 | to celebrate a birthday > to celebrate something
 | to celebrate a wedding > to celebrate something
 | to forget a bad day
 | to please a visitor
 | to settle a bet
 | to help a charity
 | for a school project
 | for a magazine
 | for the first time
 | before a long trip
 | because the bus is late
""")

LARGEST_NUMBER = 6
_NUMBER_WORDS = ("one", "two", "three", "four", "five", "six")
_EXTRA_WORDS = {"two": ("a pair of", "a couple of"), "six": ("half a dozen",)}


def number_chain(number: int) -> Chain:
    """Return the chain of a count: five > at least five > ... > at least two, or only "one"."""
    word = _NUMBER_WORDS[number - 1]
    exact = (word, str(number), *_EXTRA_WORDS.get(word, ()))
    bounds = tuple(_at_least(bound) for bound in range(number, 1, -1))
    return Chain("number", (exact, *bounds))


def _at_least(bound: int) -> tuple[str, ...]:
    phrases = (f"at least {_NUMBER_WORDS[bound - 1]}", f"more than {_NUMBER_WORDS[bound - 2]}")
    return (*phrases, "some") if bound == 2 else phrases


NUMBERS = tuple(number_chain(number) for number in range(1, LARGEST_NUMBER + 1))
ONE = NUMBERS[0]


@dataclass(frozen=True)
class Verb:
    """Something that one does to another; `converses` say the same from the other's side.

    A symmetric verb holds in both directions (talking with), so it is its own converse.
    """

    active: str
    converses: tuple[str, ...]
    symmetric: bool


def _read_verbs(lines: Iterable[str]) -> tuple[Verb, ...]:
    parts = ([part.strip() for part in line.split("|")] for line in lines)
    return tuple(
        Verb(active, (active,), True)
        if converse == "="
        else Verb(active, tuple(converse.split("/")), False)
        for active, converse in parts
    )


_VERB_TABLE = """
chasing | being chased by/fleeing from
following | being followed by/leading the way for
teaching | being taught by/taking a lesson from
pushing | being pushed by
pulling | being pulled by
carrying | being carried by/riding on the back of
feeding | being fed by/getting a meal from
washing | being washed by/getting a bath from
scaring | being scared by/afraid of
rescuing | being rescued by/getting help from
handing a cup to | being handed a cup by/taking a cup from
throwing a ball to | being thrown a ball by/catching a ball from
giving a present to | being given a present by/receiving a present from
watching | being watched by/in full view of
hiding from | being looked for by/searching for
talking with | =
dancing with | =
shaking hands with | =
arguing with | =
walking beside | =
sitting next to | =
racing against | =
"""
VERBS = _read_verbs(_VERB_TABLE.strip().splitlines())

IRREGULAR_PLURALS = {
    "man": "men",
    "woman": "women",
    "person": "people",
    "child": "children",
    "lady": "ladies",
    "gentleman": "gentlemen",
    "calf": "calves",
    "sheep": "sheep",
    "goose": "geese",
    "scarf": "scarves",
}
