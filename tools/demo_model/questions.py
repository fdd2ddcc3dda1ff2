"""Questions and answers about a picture, in English and Chinese, and without a picture."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random

from tools.demo_model.drawing import Bar, Chart, Picture, Scene, Shape, Sign
from tools.demo_model.words import (
    COLORS,
    COLORS_ZH,
    DIGITS,
    LETTERS,
    ORDINALS,
    ORDINALS_ZH,
    PLACES,
    PLACES_ZH,
    SHAPES,
    SHAPES_ZH,
    WORDS,
    is_held_out,
)


@dataclass(frozen=True, kw_only=True)
class Conversation:
    """One question with its true answer, the turns before it, and the task it belongs to.

    `sees_picture` is False where the question goes to the model without a picture. `named` lists
    shapes that the question names, with their cells: a label for training.
    """

    task: str
    question: str
    answer: str
    history: tuple[tuple[str, str], ...] = ()
    sees_picture: bool = True
    named: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Dice:
    """What a question is drawn from: random numbers, the language and the split."""

    random: Random
    chinese: bool
    held_out: bool

    def say(self, english: tuple[str, ...], chinese: tuple[str, ...]) -> str:
        """Choose one phrasing in the language of the conversation."""
        return self.random.choice(chinese if self.chinese else english)

    def yes_no(self, truth: bool) -> str:
        """Word a judgement."""
        if self.chinese:
            return "是" if truth else "不是"
        return "yes" if truth else "no"

    def color(self, color: str) -> str:
        """Name a colour."""
        return COLORS_ZH[color] if self.chinese else color

    def shape(self, shape: str) -> str:
        """Name a shape."""
        return SHAPES_ZH[shape] if self.chinese else shape

    def place(self, cell: int) -> str:
        """Name a cell of the 3x3 grid."""
        return PLACES_ZH[cell] if self.chinese else PLACES[cell]

    def thing(self, color: str, shape: str) -> str:
        """Name a coloured shape, without an article."""
        return f"{COLORS_ZH[color]}{SHAPES_ZH[shape]}" if self.chinese else f"{color} {shape}"


Builder = Callable[[Dice, Picture], Conversation | None]


def random_string(random: Random, *, digits: bool, real_word: bool, held_out: bool) -> str:
    """Draw a word, letters or a number of the split; one digit belongs to both splits."""
    while True:
        if real_word and not digits:
            text = random.choice(WORDS)
        else:
            length = random.choice((1, 2, 2, 3, 3, 4) if digits else (2, 3, 3, 4, 4, 5))
            text = "".join(random.choice(DIGITS if digits else LETTERS) for _ in range(length))
        if len(text) == 1 or is_held_out(text) == held_out:
            return text


def _article(thing: str) -> str:
    return f"an {thing}" if thing[0] in "aeiou" else f"a {thing}"


def _lone_shapes(scene: Scene) -> list[Shape]:
    """Shapes whose name occurs once in the scene."""
    names = [shape.name for shape in scene.shapes]
    return [shape for shape in scene.shapes if names.count(shape.name) == 1]


def _lone_colors(scene: Scene) -> list[Shape]:
    """Shapes whose colour occurs once in the scene."""
    colors = [shape.color for shape in scene.shapes]
    return [shape for shape in scene.shapes if colors.count(shape.color) == 1]


def ask_color(dice: Dice, picture: Picture) -> Conversation | None:
    """What color is the circle?"""
    assert isinstance(picture, Scene)
    lone = _lone_shapes(picture)
    if not lone:
        return None
    shape = dice.random.choice(lone)
    name = dice.shape(shape.name)
    question = dice.say(
        (f"What color is the {name}?", f"What is the color of the {name}?"),
        (f"{name}是什么颜色?", f"图中的{name}是什么颜色?"),
    )
    named = ((name, shape.cell),)
    answer = dice.color(shape.color)
    return Conversation(task="color", question=question, answer=answer, named=named)


def ask_shape(dice: Dice, picture: Picture) -> Conversation | None:
    """Which shape is red?"""
    assert isinstance(picture, Scene)
    lone = _lone_colors(picture)
    if not lone:
        return None
    shape = dice.random.choice(lone)
    color = dice.color(shape.color)
    question = dice.say(
        (f"Which shape is {color}?", f"What shape is {color}?"), (f"{color}的是什么形状?",)
    )
    return Conversation(task="shape", question=question, answer=dice.shape(shape.name))


def _at(dice: Dice, scene: Scene, cell: int) -> str:
    found = [shape for shape in scene.shapes if shape.cell == cell]
    if not found:
        return "没有东西" if dice.chinese else "nothing"
    thing = dice.thing(found[0].color, found[0].name)
    return thing if dice.chinese else _article(thing)


def _ask_place(dice: Dice, cell: int) -> str:
    place = dice.place(cell)
    return dice.say((f"What is in the {place}?", f"What do you see in the {place}?"),
                    (f"{place}有什么?", f"图的{place}是什么?"))  # fmt: skip


def ask_at(dice: Dice, picture: Picture) -> Conversation | None:
    """What is in the top left?"""
    assert isinstance(picture, Scene)
    cell = dice.random.randrange(9)
    if dice.random.random() < 0.75:
        cell = dice.random.choice(picture.shapes).cell
    return Conversation(task="at", question=_ask_place(dice, cell), answer=_at(dice, picture, cell))


def ask_where(dice: Dice, picture: Picture) -> Conversation | None:
    """Where is the circle?"""
    assert isinstance(picture, Scene)
    lone = _lone_shapes(picture)
    if not lone:
        return None
    shape = dice.random.choice(lone)
    name = dice.shape(shape.name)
    question = dice.say((f"Where is the {name}?",), (f"{name}在哪里?", f"{name}在什么位置?"))
    named = ((name, shape.cell),)
    answer = dice.place(shape.cell)
    return Conversation(task="where", question=question, answer=answer, named=named)


def ask_count(dice: Dice, picture: Picture) -> Conversation | None:
    """How many shapes are there?"""
    assert isinstance(picture, Scene)
    question = dice.say(
        ("How many shapes are there?", "How many shapes do you see?"),
        ("有几个形状?", "图中有几个形状?"),
    )
    return Conversation(task="count", question=question, answer=str(len(picture.shapes)))


def ask_count_of(dice: Dice, picture: Picture) -> Conversation | None:
    """How many red shapes are there? How many circles are there?"""
    assert isinstance(picture, Scene)
    by_color = dice.random.random() < 0.5
    values = [shape.color if by_color else shape.name for shape in picture.shapes]
    wanted = dice.random.choice(range(4))
    fitting = [value for value in (COLORS if by_color else SHAPES) if values.count(value) == wanted]
    if not fitting:
        return None
    value = dice.random.choice(fitting)
    if by_color:
        color = dice.color(value)
        question = dice.say((f"How many {color} shapes are there?", f"How many are {color}?"),
                            (f"有几个{color}的?", f"有几个{color}的形状?"))  # fmt: skip
    else:
        name = dice.shape(value)
        plural = "crosses" if name == "cross" else f"{name}s"
        question = dice.say((f"How many {plural} are there?",), (f"有几个{name}?",))
    return Conversation(task="count of", question=question, answer=str(wanted))


def ask_relation(dice: Dice, picture: Picture) -> Conversation | None:
    """Is the circle left of the square? The answer is yes as often as no."""
    assert isinstance(picture, Scene)
    lone = _lone_shapes(picture)
    if len(lone) < 2:
        return None
    first, second = dice.random.sample(lone, 2)
    sideways = dice.random.random() < 0.5
    apart = first.column - second.column if sideways else first.row - second.row
    if not apart:
        return None
    if dice.random.random() < 0.5:
        word, word_zh, truth = ("left of", "左边", apart < 0) if sideways else (
            "above", "上面", apart < 0)  # fmt: skip
    else:
        word, word_zh, truth = ("right of", "右边", apart > 0) if sideways else (
            "below", "下面", apart > 0)  # fmt: skip
    one, other = dice.shape(first.name), dice.shape(second.name)
    question = dice.say((f"Is the {one} {word} the {other}?",), (f"{one}在{other}的{word_zh}吗?",))
    named = ((one, first.cell), (other, second.cell))
    answer = dice.yes_no(truth)
    return Conversation(task="relation", question=question, answer=answer, named=named)


def ask_exists(dice: Dice, picture: Picture) -> Conversation | None:
    """Is there a red circle? Half yes; a false one shares the colour or the shape."""
    assert isinstance(picture, Scene)
    random = dice.random
    here = {(shape.color, shape.name) for shape in picture.shapes}
    color, name = random.choice(sorted(here))
    truth = random.random() < 0.5
    while not truth and (color, name) in here:
        if random.random() < 0.5:
            color = random.choice(list(COLORS))
        else:
            name = random.choice(SHAPES)
    thing = dice.thing(color, name)
    question = dice.say((f"Is there {_article(thing)}?",), (f"图中有{thing}吗?",))
    answer = ("有" if truth else "没有") if dice.chinese else dice.yes_no(truth)
    return Conversation(task="exists", question=question, answer=answer)


def _ask_caption(dice: Dice) -> str:
    return dice.say(("Describe the picture.", "What do you see?", "What is in the picture?"),
                    ("描述一下这张图。", "图里有什么?"))  # fmt: skip


def ask_scene_caption(dice: Dice, picture: Picture) -> Conversation | None:
    """Describe the picture: up to three shapes are listed in reading order."""
    assert isinstance(picture, Scene)
    things = [dice.thing(shape.color, shape.name) for shape in picture.shapes]
    if len(things) > 3:
        answer = f"{len(things)}个形状。" if dice.chinese else f"A picture of {len(things)} shapes."
    elif dice.chinese:
        answer = "和".join(("、".join(things[:-1]), things[-1]) if things[1:] else things) + "。"
    else:
        listed = [_article(thing) for thing in things]
        answer = " and ".join((", ".join(listed[:-1]), listed[-1]) if listed[1:] else listed)
        answer = f"{answer[0].upper()}{answer[1:]}."
    return Conversation(task="caption", question=_ask_caption(dice), answer=answer)


def _reading_task(sign: Sign) -> str:
    if sign.is_number:
        return "number"
    return "word" if sign.text in WORDS else "letters"


def _ask_text(dice: Dice, sign: Sign) -> str:
    if sign.is_number:
        return dice.say(
            ("What number is shown?", "Which number do you see?", "Read the number."),
            ("图中的数字是多少?", "这是什么数字?"),
        )
    return dice.say(
        ("What does the sign say?", "What is written on the sign?", "Read the word."),
        ("牌子上写了什么?", "图中写着什么?"),
    )


def ask_text(dice: Dice, picture: Picture) -> Conversation | None:
    """What does the sign say?"""
    assert isinstance(picture, Sign)
    return Conversation(
        task=_reading_task(picture), question=_ask_text(dice, picture), answer=picture.text
    )


def _noun(dice: Dice, sign: Sign) -> str:
    if sign.on_panel:
        return "牌子" if dice.chinese else "sign"
    if sign.is_number:
        return "数字" if dice.chinese else "number"
    return "字" if dice.chinese else "word"


def ask_sign_color(dice: Dice, picture: Picture) -> Conversation | None:
    """What color is the sign?"""
    assert isinstance(picture, Sign)
    noun = _noun(dice, picture)
    question = dice.say((f"What color is the {noun}?",), (f"{noun}是什么颜色?",))
    return Conversation(task="sign color", question=question, answer=dice.color(picture.color))


def ask_length(dice: Dice, picture: Picture) -> Conversation | None:
    """How many letters are there?"""
    assert isinstance(picture, Sign)
    noun = "digits" if picture.is_number else "letters"
    noun_zh = "数字" if picture.is_number else "字母"
    question = dice.say(
        (f"How many {noun} are there?", f"How many {noun} do you see?"), (f"有几个{noun_zh}?",)
    )
    return Conversation(task="length", question=question, answer=str(len(picture.text)))


def ask_letter(dice: Dice, picture: Picture) -> Conversation | None:
    """What is the second letter?"""
    assert isinstance(picture, Sign)
    at = dice.random.randrange(len(picture.text))
    noun, noun_zh = ("digit", "位数字") if picture.is_number else ("letter", "个字母")
    if at == len(picture.text) - 1 and dice.random.random() < 0.5:
        question = dice.say((f"What is the last {noun}?",), (f"最后一{noun_zh}是什么?",))
    else:
        question = dice.say((f"What is the {ORDINALS[at]} {noun}?",),
                            (f"{ORDINALS_ZH[at]}{noun_zh}是什么?",))  # fmt: skip
    return Conversation(task="letter", question=question, answer=picture.text[at])


def _other_text(dice: Dice, sign: Sign) -> str:
    """A different string: half the time only one character is changed."""
    while True:
        if dice.random.random() < 0.5:
            at = dice.random.randrange(len(sign.text))
            pool = DIGITS if sign.is_number else LETTERS
            text = sign.text[:at] + dice.random.choice(pool) + sign.text[at + 1 :]
        else:
            text = random_string(dice.random, digits=sign.is_number,
                                 real_word=sign.text in WORDS, held_out=dice.held_out)  # fmt: skip
        right_split = len(text) == 1 or is_held_out(text) == dice.held_out
        if text != sign.text and right_split:
            return text


def ask_says(dice: Dice, picture: Picture) -> Conversation | None:
    """Does the sign say STOP? The answer is yes as often as no."""
    assert isinstance(picture, Sign)
    truth = dice.random.random() < 0.5
    text = picture.text if truth else _other_text(dice, picture)
    if picture.is_number:
        question = dice.say((f"Is the number {text}?",), (f"数字是{text}吗?",))
    else:
        question = dice.say((f"Does the sign say {text}?",), (f"牌子上写的是{text}吗?",))
    return Conversation(task="says", question=question, answer=dice.yes_no(truth))


def ask_sign_caption(dice: Dice, picture: Picture) -> Conversation | None:
    """Describe the picture: its string and its colour."""
    assert isinstance(picture, Sign)
    color, text = dice.color(picture.color), picture.text
    noun = ("数字" if dice.chinese else "number") if picture.is_number else (
        "文字" if dice.chinese else "text")  # fmt: skip
    if picture.on_panel:
        answer = f"一个{color}的牌子,写着{text}。" if dice.chinese else (
            f"{_article(color).capitalize()} sign that says {text}.")  # fmt: skip
    elif dice.chinese:
        answer = f"{color}的{noun}{text}。"
    else:
        answer = f"The {noun} {text} in {color}."
    return Conversation(task="sign caption", question=_ask_caption(dice), answer=answer)


def ask_bar_count(dice: Dice, picture: Picture) -> Conversation | None:
    """How many bars are there?"""
    assert isinstance(picture, Chart)
    question = dice.say(
        ("How many bars are there?", "How many bars does the chart have?"),
        ("图中有几根柱子?", "有几根柱子?"),
    )
    return Conversation(task="bar count", question=question, answer=str(len(picture.bars)))


def ask_bar_value(dice: Dice, picture: Picture) -> Conversation | None:
    """What is the value of the red bar?"""
    assert isinstance(picture, Chart)
    bar = dice.random.choice(picture.bars)
    color = dice.color(bar.color)
    question = dice.say(
        (f"What is the value of the {color} bar?", f"How high is the {color} bar?"),
        (f"{color}柱子的值是多少?", f"{color}柱子有多高?"),
    )
    return Conversation(task="bar value", question=question, answer=str(bar.value))


def _extreme(dice: Dice, chart: Chart) -> tuple[Bar, bool] | None:
    """The only highest (True) or only lowest (False) bar."""
    highest = dice.random.random() < 0.5
    values = [bar.value for bar in chart.bars]
    wanted = max(values) if highest else min(values)
    if values.count(wanted) > 1:
        return None
    return chart.bars[values.index(wanted)], highest


def _ask_extreme(dice: Dice, highest: bool) -> str:
    word, word_zh = ("highest", "最高") if highest else ("lowest", "最低")
    return dice.say(
        (f"Which bar is the {word}?", f"What color is the {word} bar?"),
        (f"哪根柱子{word_zh}?", f"{word_zh}的柱子是什么颜色?"),
    )


def ask_extreme_bar(dice: Dice, picture: Picture) -> Conversation | None:
    """Which bar is the highest?"""
    assert isinstance(picture, Chart)
    found = _extreme(dice, picture)
    if found is None:
        return None
    bar, highest = found
    return Conversation(
        task="highest, lowest bar",
        question=_ask_extreme(dice, highest),
        answer=dice.color(bar.color),
    )


def ask_extreme_value(dice: Dice, picture: Picture) -> Conversation | None:
    """What is the highest value?"""
    assert isinstance(picture, Chart)
    highest = dice.random.random() < 0.5
    values = [bar.value for bar in picture.bars]
    word, word_zh = ("highest", "最大") if highest else ("lowest", "最小")
    question = dice.say((f"What is the {word} value?",), (f"{word_zh}的值是多少?",))
    answer = str(max(values) if highest else min(values))
    return Conversation(task="highest, lowest value", question=question, answer=answer)


def ask_bar_color(dice: Dice, picture: Picture) -> Conversation | None:
    """What color is the first bar?"""
    assert isinstance(picture, Chart)
    at = dice.random.randrange(len(picture.bars))
    color = dice.color(picture.bars[at].color)
    question = dice.say((f"What color is the {ORDINALS[at]} bar?",),
                        (f"{ORDINALS_ZH[at]}根柱子是什么颜色?",))  # fmt: skip
    return Conversation(task="bar color", question=question, answer=color)


def ask_compare(dice: Dice, picture: Picture) -> Conversation | None:
    """Is the red bar higher than the blue bar? The answer is yes as often as no."""
    assert isinstance(picture, Chart)
    first, second = dice.random.sample(picture.bars, 2)
    if first.value == second.value:
        return None
    one, other = dice.color(first.color), dice.color(second.color)
    question = dice.say(
        (f"Is the {one} bar higher than the {other} bar?",), (f"{one}柱子比{other}柱子高吗?",)
    )
    return Conversation(
        task="compare bars", question=question, answer=dice.yes_no(first.value > second.value)
    )


def ask_chart_caption(dice: Dice, picture: Picture) -> Conversation | None:
    """Describe the picture: the number of bars and the highest one."""
    assert isinstance(picture, Chart)
    values = [bar.value for bar in picture.bars]
    if values.count(max(values)) > 1:
        return None
    best = dice.color(picture.bars[values.index(max(values))].color)
    if dice.chinese:
        answer = f"一个有{len(values)}根柱子的图表,{best}的最高。"
    else:
        answer = f"A bar chart with {len(values)} bars, the {best} one is the highest."
    return Conversation(task="chart caption", question=_ask_caption(dice), answer=answer)


def ask_scene_turn(dice: Dice, picture: Picture) -> Conversation | None:
    """What is in the top left? a red circle. What color is it?"""
    assert isinstance(picture, Scene)
    shape = dice.random.choice(picture.shapes)
    if dice.random.random() < 0.5:
        first = (_ask_place(dice, shape.cell), _at(dice, picture, shape.cell))
        if dice.random.random() < 0.5:
            question = dice.say(("What color is it?",), ("它是什么颜色?",))
            answer = dice.color(shape.color)
        else:
            question = dice.say(("What shape is it?",), ("它是什么形状?",))
            answer = dice.shape(shape.name)
    else:
        lone = _lone_shapes(picture)
        if not lone:
            return None
        shape = dice.random.choice(lone)
        name = dice.shape(shape.name)
        asked = dice.say((f"What color is the {name}?",), (f"{name}是什么颜色?",))
        first = (asked, dice.color(shape.color))
        question = dice.say(("Where is it?", "And where is it?"), ("它在哪里?",))
        answer = dice.place(shape.cell)
    return Conversation(task="second turn", question=question, answer=answer, history=(first,))


def ask_sign_turn(dice: Dice, picture: Picture) -> Conversation | None:
    """What does the sign say? STOP. How many letters does it have?"""
    assert isinstance(picture, Sign)
    first = (_ask_text(dice, picture), picture.text)
    if dice.random.random() < 0.5:
        noun, noun_zh = ("digits", "数字") if picture.is_number else ("letters", "字母")
        question = dice.say((f"How many {noun} does it have?",), (f"它有几个{noun_zh}?",))
        answer = str(len(picture.text))
    else:
        question = dice.say(("What color is it?",), ("它是什么颜色?",))
        answer = dice.color(picture.color)
    return Conversation(task="second turn", question=question, answer=answer, history=(first,))


def ask_chart_turn(dice: Dice, picture: Picture) -> Conversation | None:
    """Which bar is the highest? red. What is its value?"""
    assert isinstance(picture, Chart)
    found = _extreme(dice, picture)
    if found is None:
        return None
    bar, highest = found
    first = (_ask_extreme(dice, highest), dice.color(bar.color))
    question = dice.say(("What is its value?", "How high is it?"), ("它的值是多少?", "它有多高?"))
    return Conversation(
        task="second turn", question=question, answer=str(bar.value), history=(first,)
    )


def ask_sum(dice: Dice, picture: Picture | None) -> Conversation | None:
    """What is 3 plus 4?"""
    random = dice.random
    kind = random.randrange(3)
    one, other = random.randint(0, 12), random.randint(0, 12)
    if kind == 2:
        one, other = random.randint(0, 9), random.randint(0, 9)
        words, sign, result = ("times", "乘"), "*", one * other
    elif kind == 1:
        one, other = max(one, other), min(one, other)
        words, sign, result = ("minus", "减"), "-", one - other
    else:
        words, sign, result = ("plus", "加"), "+", one + other
    question = dice.say(
        (f"What is {one} {words[0]} {other}?", f"What is {one} {sign} {other}?"),
        (f"{one}{words[1]}{other}等于几?", f"{one}{sign}{other}等于多少?"),
    )
    seen = picture is not None and random.random() < 0.3
    return Conversation(task="arithmetic", question=question, answer=str(result), sees_picture=seen)


CHAT = (
    ("Hello!", "Hello! How can I help you?"),
    ("Hi!", "Hello! How can I help you?"),
    ("Good morning!", "Good morning!"),
    ("Good evening!", "Good evening!"),
    ("How are you?", "I am fine, thank you."),
    ("Who are you?", "I am a small demo model."),
    ("What are you?", "I am a small demo model."),
    ("What is your name?", "I am the demo model of CogVLM2 Lite."),
    ("What can you do?", "I can read signs, find shapes and read bar charts."),
    ("Thank you!", "You are welcome."),
    ("Thanks!", "You are welcome."),
    ("Goodbye!", "Goodbye!"),
)
CHAT_ZH = (
    ("你好!", "你好!有什么可以帮你?"),
    ("您好!", "你好!有什么可以帮你?"),
    ("早上好!", "早上好!"),
    ("晚上好!", "晚上好!"),
    ("你是谁?", "我是一个小小的演示模型。"),
    ("你叫什么名字?", "我是CogVLM2 Lite的演示模型。"),
    ("你会做什么?", "我会读牌子、找形状、看柱状图。"),
    ("谢谢!", "不客气。"),
    ("再见!", "再见!"),
)


def ask_chat(dice: Dice, picture: Picture | None) -> Conversation | None:
    """Hello! These few sentences are the same in both splits."""
    question, answer = dice.random.choice(CHAT_ZH if dice.chinese else CHAT)
    seen = picture is not None and dice.random.random() < 0.2
    return Conversation(task="greeting", question=question, answer=answer, sees_picture=seen)


def ask_without_picture(dice: Dice, picture: Picture | None) -> Conversation | None:
    """What color is the circle? asked without a picture."""
    if picture is None:
        return None
    asked = dice.random.choice(ASK[type(picture)])[0](dice, picture)
    if asked is None or asked.history:
        return None
    answer = dice.say(("Please show me a picture.",), ("请给我一张图片。",))
    return replace(asked, task="no picture", answer=answer, sees_picture=False, named=())


SCENE: tuple[tuple[Builder, float], ...] = (
    (ask_color, 1.0), (ask_shape, 1.0), (ask_at, 1.6), (ask_where, 1.2), (ask_count, 0.7),
    (ask_count_of, 2.0), (ask_relation, 3.0), (ask_exists, 2.0), (ask_scene_caption, 1.0),
    (ask_scene_turn, 1.0),
)  # fmt: skip
SIGN: tuple[tuple[Builder, float], ...] = (
    (ask_text, 4.0), (ask_sign_color, 0.6), (ask_length, 0.8), (ask_letter, 2.0),
    (ask_says, 2.6), (ask_sign_caption, 1.0), (ask_sign_turn, 0.8),
)  # fmt: skip
CHART: tuple[tuple[Builder, float], ...] = (
    (ask_bar_count, 0.6), (ask_bar_value, 2.0), (ask_extreme_bar, 1.4), (ask_extreme_value, 1.0),
    (ask_bar_color, 1.2), (ask_compare, 1.6), (ask_chart_caption, 0.8), (ask_chart_turn, 0.8),
)  # fmt: skip
ASK: dict[type, tuple[tuple[Builder, float], ...]] = {Scene: SCENE, Sign: SIGN, Chart: CHART}
CHINESE_SHARE = 0.3
TEXT_ONLY_SHARE = 0.14
OLDER_TURN_SHARE = 0.08


def converse(
    random: Random, picture: Picture, count: int, held_out: bool, focus: dict[str, float]
) -> list[Conversation]:
    """Draw `count` different conversations about one picture, some without it.

    focus  factors on how often the named builders are taken
    """
    found: dict[tuple[str, str], Conversation] = {}
    builders = [build for build, _ in ASK[type(picture)]]
    weights = [weight * focus.get(build.__name__, 1.0) for build, weight in ASK[type(picture)]]
    while len(found) < count:
        dice = Dice(random=random, chinese=random.random() < CHINESE_SHARE, held_out=held_out)
        if random.random() < TEXT_ONLY_SHARE:
            build = random.choice((ask_sum, ask_sum, ask_chat, ask_without_picture))
            asked = build(dice, picture)
        else:
            asked = random.choices(builders, weights)[0](dice, picture)
        if asked is None:
            continue
        if asked.sees_picture and not asked.history and random.random() < OLDER_TURN_SHARE:
            asked = _with_older_turn(random, asked, list(found.values()))
        found[asked.question, asked.task] = _tag(asked, dice)
    return list(found.values())


def _tag(asked: Conversation, dice: Dice) -> Conversation:
    return replace(asked, task=f"{asked.task} (zh)") if dice.chinese else asked


def _with_older_turn(
    random: Random, asked: Conversation, others: list[Conversation]
) -> Conversation:
    """Put another question about the same picture before this one."""
    fitting = [other for other in others if other.sees_picture and not other.history]
    fitting = [other for other in fitting if other.question != asked.question]
    if not fitting:
        return asked
    other = random.choice(fitting)
    return replace(asked, history=((other.question, other.answer),))
