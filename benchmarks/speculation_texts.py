"""Texts for `benchmarks.speculation`: pages and what a model may answer about them.

All of them were written for this benchmark. The letters, the article and the notice are what a page
says, and so the right answer to "Write down the text."; an OCR program read them with some wrong
letters.
"""

from __future__ import annotations

import random

LETTER = """\
Harbour Street Housing Association
14 Harbour Street, Whitby

3 March 2025

Dear Ms Okafor,

Thank you for your letter of 18 February about the lift in your building. I am sorry that it has \
been out of service twice this winter, and that you had to carry your shopping up four floors.

Our engineer inspected the lift on 24 February. The motor is sound, but the door sensor on the \
second floor is worn, and the control unit stops the lift whenever the sensor reports an \
obstacle that is not there. We have ordered a new sensor from the manufacturer. It should arrive \
within ten working days, and the repair itself takes half a day. Until then the lift will stop at \
every floor except the second. A notice will be posted in the entrance hall one day before the \
repair begins.

You also asked why the service charge rose by 4.5 per cent this year. The largest part of the \
increase is the cost of electricity for the stairs, the lift and the pump in the basement, which \
rose from 6,120 pounds to 7,480 pounds. Cleaning and gardening cost the same as last year. A full \
statement is enclosed, and the accounts may be inspected in our office on any weekday between \
nine and four.

If you have any further questions, please call me on the number above or write to the address at \
the top of this letter.

Yours sincerely,

Daniel Whitcombe
Building Manager
"""

ARTICLE = """\
How the valley got its railway

When the first surveyors came up the valley in the spring of 1871, most people laughed at them. \
The river flooded every few years, the slopes were steep, and the only things worth carrying down \
to the coast were timber, cheese and a little copper. Still, the company had raised enough money \
for twelve miles of track, and in September of the same year four hundred men began to cut into \
the rock below the old mill.

The work went slowly. Two bridges were carried away before their second winter, and the \
contractor, a quiet man named Josiah Pell, lost a good part of his own fortune in replacing them. \
The long tunnel under Hart Fell alone took nineteen months. Miners from Cornwall dug it by \
candlelight from both ends, and when they met in the middle the two halves were less than a \
hand's breadth apart.

The line opened on 6 May 1876 with a single engine and three carriages. The journey that had \
taken a day by cart now took fifty minutes. Within ten years the population of the upper valley \
had doubled; there was a bank, a second school and a hotel with forty beds, and milk that left \
the farms at five in the morning was sold in the city before noon.

The last train ran in 1964. Today the track is a path for walkers and cyclists, and the station \
houses are homes. But the tunnel is still there, dry and perfectly straight, and on a clear day \
you can stand at one end of it and see the daylight at the other.
"""

REMINDER = """\
Brookfield Dental Practice
Dr Hannah Osei and Partners

Mr Peter Lindqvist
27 Mill Lane
Hereford HR2 7QP

Patient number: 40318
12 November 2024

Dear Mr Lindqvist,

Our records show that your last check-up was on 9 April. We recommend a visit every six months, \
so we would like to invite you to make an appointment before the end of the year. Please call us \
between 8.30 and 17.00, or use the form on our website.

At your last visit Dr Osei noted some wear on two of the upper teeth and suggested a night guard. \
If you decide to have one made, we will take an impression during the check-up; the guard is then \
ready after about two weeks. The price is 185 pounds, of which most insurers pay half.

Please also note these changes at the practice:

- From 2 December we open at 7.30 on Tuesdays and Thursdays.
- The car park behind the building is closed until the end of January. The nearest one is in \
Castle Street, five minutes away on foot.
- Appointments that are cancelled less than 24 hours before cost 30 pounds.

We look forward to seeing you.

Kind regards,

Maria Fenwick
Practice Manager
"""

NOTICE_ZH = """\
关于暂停供水的通知

各位居民:

因地下管道年久失修,近期多次发生漏水,影响了小区的正常用水。为了保证大家的用水安全,物业公司决定于六月十二日\
(星期四)上午八点至下午五点更换三号楼至七号楼之间的主管道。施工期间,上述各楼将暂停供水,请大家提前做好储水准备。

施工队会在道路两旁设置围栏和警示牌,请行人和车辆绕行,不要靠近施工区域,并照看好老人和孩子。小区东门当天只供行人\
通过,车辆请从北门进出。恢复供水后,最初流出的水可能有些浑浊,请先放水几分钟,待水变清后再使用。热水器和净水设备\
请在供水恢复以后再打开,以免损坏。

如果遇到大雨等恶劣天气,施工将顺延到第二天,届时会另行通知。施工结束后,物业公司将派人逐户检查水压,请家中留人配合。\
有特殊困难的住户,例如行动不便的老人和需要照顾的病人,可以提前与物业公司联系,我们会安排专人送水上门。

给您的生活带来不便,我们深表歉意,感谢您的理解与支持。如有疑问,请拨打服务电话,或者到物业办公室咨询,办公时间为\
每天上午九点到下午六点。

物业管理公司
六月五日
"""

TABLE = """\
| Item | Article | Quantity | Unit price | Total |
| --- | --- | --- | --- | --- |
| 1 | Desk lamp, black | 4 | 24.90 | 99.60 |
| 2 | Desk lamp, white | 2 | 24.90 | 49.80 |
| 3 | Office chair, grey | 6 | 139.00 | 834.00 |
| 4 | Office chair, blue | 2 | 139.00 | 278.00 |
| 5 | Filing cabinet, 3 drawers | 3 | 189.50 | 568.50 |
| 6 | Filing cabinet, 4 drawers | 1 | 219.50 | 219.50 |
| 7 | Whiteboard, 90 x 120 cm | 2 | 64.00 | 128.00 |
| 8 | Whiteboard markers, set of 8 | 10 | 7.95 | 79.50 |
| 9 | Printer paper, 500 sheets | 40 | 4.15 | 166.00 |
| 10 | Power strip, 6 outlets | 8 | 14.30 | 114.40 |
| 11 | Waste bin, 15 litres | 6 | 11.75 | 70.50 |
| 12 | Delivery and assembly | 1 | 95.00 | 95.00 |
"""

JSON = """\
{
  "invoice_number": "2025-0417",
  "date": "2025-03-03",
  "customer": {"name": "Lindgren Architects", "city": "Malmo"},
  "items": [
    {"article": "Desk lamp, black", "quantity": 4, "unit_price": 24.90, "total": 99.60},
    {"article": "Desk lamp, white", "quantity": 2, "unit_price": 24.90, "total": 49.80},
    {"article": "Office chair, grey", "quantity": 6, "unit_price": 139.00, "total": 834.00},
    {"article": "Office chair, blue", "quantity": 2, "unit_price": 139.00, "total": 278.00},
    {"article": "Filing cabinet, 3 drawers", "quantity": 3, "unit_price": 189.50, "total": 568.50},
    {"article": "Filing cabinet, 4 drawers", "quantity": 1, "unit_price": 219.50, "total": 219.50},
    {"article": "Whiteboard, 90 x 120 cm", "quantity": 2, "unit_price": 64.00, "total": 128.00},
    {"article": "Printer paper, 500 sheets", "quantity": 40, "unit_price": 4.15, "total": 166.00},
    {"article": "Power strip, 6 outlets", "quantity": 8, "unit_price": 14.30, "total": 114.40}
  ],
  "sum": 2457.80,
  "currency": "EUR"
}
"""

INVOICE = """\
Northgate Office Supplies
Invoice 2025-0417
Date: 3 March 2025

Lindgren Architects
Malmo

No. Article Quantity Unit price Total
1 Desk lamp, black 4 24.90 99.60
2 Desk lamp, white 2 24.90 49.80
3 Office chair, grey 6 139.00 834.00
4 Office chair, blue 2 139.00 278.00
5 Filing cabinet, 3 drawers 3 189.50 568.50
6 Filing cabinet, 4 drawers 1 219.50 219.50
7 Whiteboard, 90 x 120 cm 2 64.00 128.00
8 Printer paper, 500 sheets 40 4.15 166.00
9 Power strip, 6 outlets 8 14.30 114.40

Sum EUR 2,457.80
Payable within 30 days. Thank you for your order.
"""
"""What the page of JSON says, as an OCR program reads it: a single space between two columns."""

SECOND_ANSWER = """\
The letter gives two reasons. First, the door sensor on the second floor is worn, and the control \
unit stops the lift whenever the sensor reports an obstacle that is not there. The housing \
association has ordered a new sensor from the manufacturer. It should arrive within ten working \
days, and the repair itself takes half a day. Until then the lift will stop at every floor except \
the second. Second, the service charge rose by 4.5 per cent this year. The largest part of the \
increase is the cost of electricity for the stairs, the lift and the pump in the basement, which \
rose from 6,120 pounds to 7,480 pounds. The letter is signed by Daniel Whitcombe, the building \
manager.
"""
"""An answer about LETTER behind its transcription, to "Why was the lift out of service, and why did
the service charge rise?" """

PROSE = """\
The picture shows a small fishing harbour early in the morning. Four wooden boats lie side by side \
along a stone wall, their paint faded to pale blue and green, and a fifth one is just leaving \
through the narrow gap between two breakwaters. A man in a yellow coat stands at its stern and \
looks back at the quay, where a woman with a basket has stopped to watch. Behind her a row of \
low houses climbs the hill; smoke rises from one chimney and drifts towards the church at the \
top. The water is almost still, so that every mast has a twin below it, broken only where the \
departing boat has left a widening line of ripples. Low clouds cover most of the sky, but a band \
of orange light near the horizon suggests that the sun has only just come up. Nets are spread over \
the railing to dry, and gulls sit on the posts in between as if they were waiting for something. \
The mood is calm and slightly melancholy, helped by the muted colours and by the empty space that \
the photographer has left on the right, where nothing happens except light on water.
"""

LOOK_ALIKE = {
    "a": "o", "b": "h", "c": "e", "d": "cl", "e": "c", "f": "t", "g": "q", "h": "b", "i": "l",
    "l": "1", "m": "rn", "n": "u", "o": "0", "q": "g", "r": "n", "s": "5", "t": "f", "u": "v",
    "v": "y", "w": "vv", "y": "v", "O": "0", "I": "l", "S": "5", "B": "8", "0": "O", "1": "l",
    "5": "S", "8": "B",
}  # fmt: skip
"""What OCR programs read in place of some letters."""

_OTHER_ZH = (
    "的一是不了人我在有他这中大来上国个到说们为子和你地出道也时年得就那要下以生会自着去之过家学对可"
)


def with_wrong_letters(text: str, share: float, seed: int, *, alike: bool = True) -> str:
    """Return a text in which this share of the letters and digits is wrong.

    alike  letters look like the right ones, as OCR programs get them; False: any letters
    """
    dice, found = random.Random(seed), []
    for letter in text:
        if not letter.isalnum() or dice.random() >= share:
            found.append(letter)
        elif ord(letter) > 0x2E80:
            found.append(dice.choice(_OTHER_ZH.replace(letter, "")))
        else:
            other = LOOK_ALIKE.get(letter) if alike else None
            found.append(other or dice.choice("abcdefghiklmnorstu"))
    return "".join(found)
