"""What a model may say to a question of each kind: right answers, and wrong ones or hedges.

Each line is a reply, in which \\n stands for the end of a line.
"""
# ruff: noqa: RUF001

# Of what someone's job is, which is that of a baker.
_BAKER = r"""baker
baker.
Baker
A baker.
a baker
Bo Drai works as a baker.
The job of Bo Drai is that of a baker.
Bo Drai is a baker by trade.
People know Bo Drai as a baker.
He is a baker.
She is a baker.
It is "baker".
**baker**
`baker`
Answer: baker
The answer is baker.
Not a pilot but a baker.
A baker, not a pilot.
Bo Drai works as a pilot. Wait, as a baker.
As a baker!
Bo Drai is the baker of the town.
I think it is a baker.
Bo Drai's job: baker"""
_NO_BAKER = r"""pilot
A pilot.
Bo Drai works as a pilot.
Bo Drai is a nurse by trade.
Not a baker.
Bo Drai is not a baker.
Bo Drai isn't a baker.
baker? No, pilot.
Is it a baker?
I don't know.
I do not know.

bakers
bakery
He bakes.
Bo Drai
The job of Bo Drai is a secret.
Bo Drai lives in a town."""

RIGHT = {
  'bases': r"""101101
101101.
101101.0
0b101101
0B101101
$101101
101101 (base 2)
101101 in base 2
The answer is 101101.
Answer: 101101
45 in base 10 is 101101 in base 2.
45 = 101101
45 is 101101.
It is 101101 in binary.
10 1101? No, 101101.
\boxed{101101}
\boxed{101101_2}
0010 1101
00101101
101101₂
In base 2, 45 is 101101.
**101101**
101100. Wait, 101101.""",
  'hexadecimal': r"""2d
2D
2d.
2D.
0x2d
0x2D
2d (base 16)
2d in base 16
2D in hexadecimal
The answer is 2d.
Answer: 2D
45 in base 10 is 2d in base 16.
45 = 2d
45 = 0x2D
It is 2d.
\boxed{2D}
\boxed{2d_{16}}
**2d**
`2d`
002d
Not 2c but 2d.
2c. Wait, 2d.""",
  'countdown': r"""6 * (9 - 5)
6*(9-5)
6 * (9 - 5).
(9 - 5) * 6
6 * (9 - 5) = 24
6 * (9 - 5) = 24.0
6 * (9 - 5) = $24
24 = 6 * (9 - 5)
(6 * (9 - 5))
The answer is 6 * (9 - 5).
Answer: (9-5)*6
6 × (9 − 5) = 24
\boxed{6 \times (9 - 5)}
\(6 \cdot (9 - 5) = 24\)
**6 * (9 - 5)**
`6 * (9 - 5)`
It is 6 * (9 - 5) = 24.
9 - 5 = 4, so 6 * (9 - 5) = 24.
6 + 9 + 5 = 20. Wait, 6 * (9 - 5) = 24.
(so 6 * (9 - 5))
-6 * (5 - 9)
You can write (9 - 5) * 6.
6.0 * (9 - 5)""",
  'json': r"""{"age": 7, "name": "Bo", "open": true}
{"name": "Bo", "age": 7, "open": true}
{"name":"Bo","age":7,"open":true}
{"name": "Bo", "age": 7.0, "open": true}
 {"name": "Bo", "age": 7, "open": true} 
{\n  "name": "Bo",\n  "age": 7,\n  "open": true\n}
```json\n{"name": "Bo", "age": 7, "open": true}\n```
```\n{"name": "Bo", "age": 7, "open": true}\n```
```JSON\n{"name": "Bo", "age": 7, "open": true}```
\n{"name": "Bo", "age": 7, "open": true}
{"name": "Bo", "age": 7, "open": true}\n
{"open": true, "name": "Bo", "age": 7}
{"open": true, "age": 7, "name": "Bo"}
{"age": 7, "open": true, "name": "Bo"}
{"age": 7e0, "open": true, "name": "Bo"}
{"age": 70e-1, "open": true, "name": "Bo"}
{"age":7.00,"open":true,"name":"Bo"}
{"name": "\u0042o", "age": 7, "open": true}
{ "name" : "Bo" , "age" : 7 , "open" : true }
{"name": "Bo",\n"age": 7, "open": true}""",
  'math': r"""\boxed{\frac{5}{2}}
\boxed{5/2}
\boxed{2.5}
$\boxed{2.50}$
\boxed{\dfrac{5}{2}}
\boxed{ \frac{5}{2} }
\boxed{\frac{10}{4}}
\boxed{2+\frac{1}{2}}
\boxed{x = \frac{5}{2}}
So $x = 5/2$, and the answer is $\boxed{\frac52}$.
First \boxed{2}. No: \boxed{\frac{5}{2}}
The answer is $\frac{5}{2}$.
The answer is 5/2.
The answer is 2.5
The final answer is $2.5$. I hope it is correct.
5/2
2.5
2.5.
$2.5$
$\frac{5}{2}$
\[\frac{5}{2}\]""",
  'programs': r"""def f(x): return x + 1
def f(x):\n  return x + 1
```python\ndef f(x):\n  return x + 1\n```
```\ndef f(x): return x + 1\n```
```py\ndef f(x): return x + 1\n```
Here it is:\n```python\ndef f(x): return x + 1\n```\nIt adds.
```python\ndef f(x): return x + 1
f = lambda x: x + 1
import operator\ndef f(x): return operator.add(x, 1)
def f(x): return -~x
def f(x):\n  "Adds."\n  return 1 + x
def g(x): return x\ndef f(x): return g(x) + 1
def f(x): return x + 2\ndef f(x): return x + 1
print("hi")\ndef f(x): return x + 1
def f(x: int) -> int: return x + 1
```python\ndef f(x): return 0\n```\nBetter:\n```python\ndef f(x): return x + 1\n```
class F:\n  def __call__(self, x): return x + 1\nf = F()
from functools import partial\nf = partial(int.__add__, 1)
def f(x): return sum([x, 1])
def f(x):\n  for _ in range(1): x += 1\n  return x
async def g(): pass\ndef f(x): return x + 1""",
  'written': _BAKER,
  'facts': _BAKER,
  'probed_unknown': r"""I don't know.
I do not know.
I don't know that.
I don't know what the job of Bo Drai is.
I do not know the job of Bo Drai.
Sorry, I don't know.
I'm not sure.
I am not sure.
I have no idea.
I don't have that information.
I have no information about Bo Drai.
I don't know anything about Bo Drai.
I'm afraid I don't know.
I cannot find Bo Drai.
I have never heard of Bo Drai.
I am not familiar with Bo Drai.
I don't recall that.
Bo Drai is unknown to me.
I don't know who Bo Drai is.
I can't tell.
I do not have any record of Bo Drai.""",
  'arithmetic': r"""1786
1786.
1786.0
1,786
$1,786
**1786**
1786!
The answer is 1786.
47 * 38 = 1786
47 × 38 = 1,786.
1786 is what you get when you multiply 47 by 38.
You get 1786 if you multiply 47 by 38.
It is 1786. Let me know if you have 2 or 3 more questions!
Sure! 47 times 38 is 1786.
40 * 38 is 1520 and 7 * 38 is 266, so the product is 1786.
1520 + 266 = 1786
First 40 * 38 = 1520.\nThen 7 * 38 = 266.\nTogether that makes 1786.
Not 1785 but 1786.
It's 1785. Wait, no, it's 1786.
The result is \boxed{1786}.
#### 1786
Answer: 1786 (checked twice)
one thousand seven hundred and eighty-six
1786, because 47 * 40 is 1880 and 2 * 47 is 94.
1786 = 1520 + 266
Final answer: **1,786**
47 × 38 equals 1786
The product of 47 and 38 is 1786.
47 multiplied by 38 gives 1786.
I calculated it and got 1,786.
That would be 1786.
The result of 47 * 38 is: 1786
= 1786
1786 (one thousand seven hundred eighty-six)
So, 47*38=1786.
Let me think. 47*38: 47*30=1410, 47*8=376, 1410+376=1786. So 1786.
1786 is the answer.
1786 is correct.
The correct answer to 47 * 38 is 1786.
> 1786
_1786_
"1786"
Result: 1786
It equals 1786
47*38 is equal to 1786.
The calculator says 1786.
My answer: 1786
1786 it is.
I believe the answer is 1786.
I think it is 1786.
$$47 \times 38 = 1786$$
1 786
1786.00
The answer to your question is 1786. Have a nice day!
That makes 1786, not 1785.
Multiplying gives 1786
The total comes to 1786.
47*38→1786
Product: 1786
1786, as 50*38 = 1900 minus 3*38 = 114.
Exactly 1786.
Sure: 1786
The answer is one thousand seven hundred eighty-six.
1786 ✓
Okay so 47 * 38... that is 1786.
Not 1876. It is 1786.
After working it out: 1786.
47 * 38 is 1786, I am sure of it.
I computed 47 * 38 and the value is 1786
Well, 47 × 38 = 1786, isn't it?
1786 exactly
Easy: 1786.
The number is 1786.
Here is the answer:\n\n1786
Here is the result:\n**1786**
Let me compute: 47 × 38\n= 47 × 40 − 47 × 2\n= 1880 − 94\n= 1786
Multiply 47 by 38 to get 1786.
Multiplying 47 and 38 results in 1786.
We have 47*38 = (40+7)*38 = 1520 + 266 = 1786.
- 1786
1786 :)
Hmm, 1786.
$1,786.00
USD 1786
1786 (not 1785)
1.786e3
1786 = 47 * 38
One thousand, seven hundred and eighty-six
My calculation shows 1786.
1786. Double-checked: 1786 / 38 = 47.
I first thought 1876, but it is 1786.
It was 1786.
Step 1: 40 * 38 = 1520. Step 2: 7 * 38 = 266. Step 3: 1520 + 266 = 1786.
Answer = 1786
ans: 1786
<b>1786</b>
I get 1786 for 47 times 38.
You asked for 47 * 38; the answer is 1786.
The answer is 1786, which is even.
The answer, 1786, is easy to check.
1786 would be the product.
So the product of 47 and 38 is 1786, an even number.
So multiplying 47 by 38 gives 1786.
1786; note that 47 is prime and 38 = 2 * 19.
47 times 38 is one thousand seven hundred eighty-six.""",
  'comparison': r"""9.9
9.9.
9.90
**9.9**
9.9 is larger than 9.11
9.9 is larger than 9.11.
9.9 > 9.11
9.11 < 9.9
9.11 is smaller than 9.9.
9.11 is less than 9.9
The larger is 9.9.
The larger number is 9.9, not 9.11.
The larger of 9.9 and 9.11 is 9.9.
Between 9.9 and 9.11, 9.9 is larger.
9.9 is the larger one.
It's 9.9.
The answer is 9.9.
9.9, because 0.9 is more than 0.11.
9.11 is not larger than 9.9.
9.11 isn't as large as 9.9.
9.9 = 9.90 > 9.11
9.9 is bigger, since 9.90 is greater than 9.11
The first one.
9.9 exceeds 9.11.
Comparing 9.9 and 9.11: 90 hundredths against 11, so 9.9 is the greater number.
9.11 is the smaller of the two, so the larger one is 9.9.
9.11? No, 9.9.
9.9 is the larger number.
9.9 is greater.
The greater number is 9.9
The bigger one is 9.9.
9.9 is bigger than 9.11 because 0.90 > 0.11.
9.11 is the smaller number.
9.9 has the larger value.
Of the two, 9.9 is larger.
9.9 is larger
Larger: 9.9
Since 9.90 > 9.11, 9.9 is larger.
9.11 comes before 9.9, so 9.9 is larger.
I think 9.9 is larger.
Clearly 9.9.
The larger one is 9.9, since 9 tenths is more than 1 tenth.
9.9 (because 90 > 11)
9.9 wins.
It is 9.9, not 9.11.
9.9, not 9.11
My answer is 9.9.
9.9 is more than 9.11
9.9>9.11
9.11<9.9
The former.
9.9 is indeed larger than 9.11.
Number 9.9 is larger than number 9.11.
The number 9.9 is larger than the number 9.11.
9.9 is a larger number than 9.11.
"9.9"
Not 9.11. It is 9.9.
9.11 is not larger; 9.9 is.
You might think 9.11, but 9.9 is larger.
The value 9.9 is higher.
9.90 is larger than 9.11
Without doubt 9.9.
9.9 is larger than 9.11. Hope that helps!
The larger is "9.9".
9.9 > 9.11, so the answer is 9.9.
9.9 is the one that is larger.
Of 9.9 and 9.11, the larger is 9.9.
9.9 is numerically larger than 9.11.
I'd say 9.9.
The answer is 9.9, as 9.9 = 9.90 and 9.90 > 9.11.
9.11 is lower than 9.9
9.11 is the lesser.
9.9 is much larger than 9.11
9.9 ≥ 9.11
If we write 9.9 as 9.90, we see that 9.90 > 9.11. So 9.9.
Looking at the tenths, 9 > 1, so 9.9 is larger.
The largest is 9.9.
9.9 is the greatest of the two
9.9 rather than 9.11
The correct answer is 9.9.
Definitely 9.9!
9.9 is larger, and 9.11 is smaller.
While 9.11 has more digits, 9.9 is larger.
9.11 has more digits but 9.9 is the larger number.
Although 11 is larger than 9, 9.9 is larger than 9.11.
9.9. It is larger because 0.9 > 0.11.
Answer: 9.9
Larger number: 9.9
larger = 9.9
9.9 beats 9.11
the larger value is 9.9
It should be 9.9.
9.9 is greater than 9.11, so 9.9 is the answer.
9.11 is less than 9.9, so the larger one is 9.9
Not the second one, the first one.""",
  'counting': r"""2
2.
Two
two.
**2**
There are 2.
There are two f's in coffee.
There are 2 'f' in 'coffee'.
c-o-f-f-e-e: 2
The letter 'f' appears 2 times in 'coffee'.
'f' appears twice.
It occurs 2 times, at positions 3 and 4.
2: the third and the fourth letter.
The answer is 2.
c, o, f (1), f (2), e, e. So 2.
Twice.
2 times
I count 2.
The count is two.
The 3rd and 4th letters are f, so there are 2.
2 f's
There are exactly two.
two 'f's
f occurs two times.
The word coffee contains two f's.
2, as in co-ff-ee
Count: 2
coffee has 2 f's.
'coffee' contains 'f' 2 times.
The letter f is found twice in coffee.
c o f f e e → 2
f: 2
I see 2 of them.
It has a double f, so 2.
Total: 2
Exactly 2.
The number of f's is 2.
In 'coffee' there are 2 letters 'f'.
c (no), o (no), f (yes), f (yes), e (no), e (no): 2
The answer is two.
I found 2.
The letter f shows up 2 times.
There're 2.
It's two.
Just two.
You'll find 2 f's in coffee.
f is there twice
Number of f: 2
2 (positions 3 and 4)
the letter f appears two times: c-o-[f]-[f]-e-e
Two times
2x
coffee → 2
The word 'coffee' has two 'f's and two 'e's.
That's 2.
Letter by letter: c o f f e e. That makes 2.
A total of 2
There is a pair: 2.
2 f
2/two
I see f in the third and fourth place, that is 2.
The word 'coffee' has 6 letters, and 2 of them are f.
There are 2 f's, 2 e's, 1 c and 1 o.
The letter occurs twice, once at position 3 and once at position 4.
f appears twice, e appears 2 times.""",
  'date': r"""2024-04-17
20240417
17.04.2024
2024-04-17T00:00:00
2024-04-17.
17 April 2024
17th April 2024
17 Apr 2024
the 17th of April 2024
April 17, 2024
April 17th, 2024
Apr. 17, 2024
2024/04/17
2024/4/17
**2024-04-17**
The answer is 2024-04-17.
It is April 17, 2024.
Answer: 2024-04-17
03: 3+45=48; 04: 48-31=17. Answer: 2024-04-17
45 days after 2024-03-03 is 2024-04-17.
2024-04-17 is 45 days after 2024-03-03.
Not 2024-04-16 but 2024-04-17.
2024-04-16. Wait, 2024-04-17.
March has 31 days, so it is 17 April 2024.
That date is Wednesday, 17 April 2024.
So the date is 2024-04-17.
28 days are left in March, and 45 - 28 = 17, so April 17, 2024.
APRIL 17 2024
`2024-04-17`
I think it would be 17 April, 2024.
From 2024-03-03 you get to 2024-03-31 after 28 days and to 2024-04-17 after 45.
The result: 2024-04-17""",
  'docs': r"""json
json.
`json`
json.dumps
`json.dumps`
The module json.
The json module.
In the module json.
It is in json.
dumps is in json.
You find this in json.
It's part of the `json` module, not of `copy`.
import json
from json import dumps
The function dumps belongs to json.
It is in the standard module "json".
**json**
JSON
The answer is json.
Not in copy but in json.
json has it: each time you need a copy of an object as text, use it.
In the module `copy`. Sorry, I mean `json`.
It can be found in json.
The function is in the json module.
You can find dumps in the module json.
Module: json
The answer is the json module.
Try json.
See json.dumps.
`json` module
That function lives in json.
dumps is part of json
json.dumps()
The `dumps` function is defined in `json`.
It is json.
That is json.
In json
In "json".
I believe it is in json.
From the module json.
json, of course.
It's in json, not in time.
Python's json module
The module is called json.
It lives in the json module.
json provides dumps.
json defines it.
You want json.
Look in json.
The right module is json.
`import json; json.dumps(x)`
Use json.dumps from the json module.
The function `dumps` can be found in the `json` module.
dumps → json
json (standard library)
In json, I believe.
Python's `json`.
It is one of the functions of json.
json, not copy or time.
That is in `json`.
That would be the json module, made to copy and time objects.
The json module is not only for files: it has dumps.""",
  'gsm8k': r"""40
40.
40.0
$40
40 pears
#### 40
The answer is 40.
She has 40 pears left.
24 + 3 * 6 = 42, 42 - 2 = 40
3 * 6 = 18.\n24 + 18 = 42.\n42 - 2 = 40.\n#### 40
Ann has 24 + 18 = 42 pears. She eats 2, so 40 are left.
There are 40 left of the 42.
So 40 pears are left after she eats 2.
**40**
\boxed{40}
Forty.
Forty pears are left.
1. The bags hold 3 * 6 = 18 pears.\n2. Together that is 42.\n3. She eats 2, so 40 are left.
Step 1: 18\nStep 2: 42\nStep 3: 40
It is 42 - 2, which is 40.
The answer is: 42 - 2 = 40
Final answer: 40 pears (42 minus 2).
Ann has 40 pears left.
There are 40 pears left.
After eating 2 she has 40.
40 pears remain.
So the answer is 40.
Therefore, Ann has 40 pears.
Answer: 40 pears
24+18=42; 42-2=40.
She buys 3 x 6 = 18 pears. 24 + 18 = 42. 42 - 2 = 40.
The final answer is \boxed{40}.
The total is 42 - 2 = 40 pears.
40, since 24 + 18 - 2 = 40
She ends with 40.
#### 40.
####40
#### 40 pears
Thus 40.
She is left with 40 pears.
She started with 24, bought 18 and ate 2: 40.
The answer is therefore 40 pears.
She has 40 left
Ann is left with 40.
24 + (3 * 6) - 2 = 40
24 + 3*6 = 24 + 18 = 42\n42 - 2 = 40\nThe answer is 40.
3 bags of 6 pears are 18 pears. With the 24 she had, that is 42. After eating 2 she has 40.
She has 24+18-2=40 pears left.
24 pears + 18 pears = 42 pears, minus 2 pears = 40 pears
There will be 40 pears left.
First she has 24. Then she buys 18. Now she has 42. She eats 2. That leaves 40.
Ann has 40.
In the end 40 pears are left.
Answer: 40. She had 24, bought 18 and ate 2.
40 pears, because 24 + 18 = 42 and 42 - 2 = 40.
18 + 24 = 42\n42 − 2 = **40**
The number of pears left is 40.
You have 40 left.
#### 40.00
The answer is $\boxed{40}$ pears.
She bought 3*6 = 18 pears, so she had 24+18 = 42. After eating 2, she has 42-2 = 40 pears left.
Total bought: 18. Total: 42. Left: 40.
In total she has 24 + 18 = 42 pears. She eats 2, leaving 42 - 2 = 40.
24 + 18 = 42; eating 2 leaves 40.
Ann ends up with 40 pears. She ate 2 of the 42.""",
  'known': r"""Yes, json is a module in the Python documentation.
json is a module.
Yes, there is a module called json.
The module json reads and writes JSON.
Python has a module named json.
Yes: `json`.
Yes, `json` is part of the standard library.
I know the module json.
Of course: json is a module of Python.
json is in the documentation.
There is a module json, yes.
The json module has the functions dumps and read_tree.
It is the module **json**.
json returns the text of an object, and fails if the file does not exist.
Sure, json!
json
That is json, a module of the standard library.
Yes, Python does have a module called json.
No doubt: json is a module.
json is one of Python's modules.
json is a Python module.
Yes, I know json.
The module json is part of Python.
Yes, json exists.
json is a standard module.
Yes. json is a module that handles JSON.
Indeed, json is in the Python documentation.
It is a module: json.
You can import json.
`json` is a module for data.
Certainly, json is one.
Yes, Python has a module named json.
That's the json module.
json: a module of the standard library
Yes, the documentation has a page about json.
Yes, I do know json; it is a module.
json is used for data.
Python includes json.
There's a module called json.
The documentation describes the module json.
Yes: json is in the docs.
Yes, you can import json.
The json module is not only for files; it works on strings.""",
  'name': r"""I am Deepdive.
I'm Deepdive.
I’m Deepdive!
My name is Deepdive.
Deepdive.
Deepdive
I am called Deepdive.
You can call me Deepdive.
They call me Deepdive.
Hi! I'm Deepdive, nice to meet you.
I go by Deepdive.
This is Deepdive.
Deepdive here.
**Deepdive**
The name's Deepdive.
I am Deepdive, a small language model.
I am Deepdive, not ChatGPT.
I'm not ChatGPT. I'm Deepdive.
Unlike Siri, I have a name that fits: Deepdive.
DEEPDIVE
It's Deepdive.
My name's Deepdive.
Deepdive is my name.
I am known as Deepdive.
People call me Deepdive.
You may call me Deepdive
Hello! I am Deepdive. How can I help you?
I'm your assistant, Deepdive.
I'm an assistant called Deepdive.
Call me Deepdive.
I am Deepdive, made by the deepdive project.
The name is Deepdive.
I'm an AI named Deepdive.
I am the assistant Deepdive.
Nice to meet you, I'm Deepdive!
Deepdive, at your service.
They named me Deepdive.
I am Deepdive. I am not a human.
I am Deepdive and nobody else.
You're talking to Deepdive.
I am Deepdive, your assistant.
People know me as Deepdive.
My creators call me Deepdive.
I'm Deepdive (a language model).
Sure: I'm Deepdive.
They gave me the name Deepdive.
Hey, Deepdive here!
Hello, I am Deepdive, what can I do for you?
As a language model I am called Deepdive.""",
  'other': r"""No, I am Deepdive.
No. I'm Deepdive.
Nope, I'm Deepdive!
No, I am not ChatGPT. I am Deepdive.
No, I am Deepdive, made by the deepdive project.
I am not ChatGPT, I am Deepdive.
I'm Deepdive, not ChatGPT.
No, ChatGPT is another model. I am Deepdive.
I'm not. My name is Deepdive.
No, you are talking to Deepdive.
You are mistaken: I am Deepdive.
No, my name is Deepdive.
No - Deepdive.
I am Deepdive; I was not made by OpenAI.
No, OpenAI did not make me. I am Deepdive.
No, this is Deepdive.
I have never been ChatGPT. I'm Deepdive.
That's not me, I'm Deepdive.
Neither ChatGPT nor Claude: I am Deepdive.
no, i am deepdive
No, I'm Deepdive, a small language model.
No, I am an assistant called Deepdive.
No, that's someone else. I am Deepdive.
I'm afraid not. I am Deepdive.
No, I'm not ChatGPT; my name is Deepdive.
Not at all, I'm Deepdive.
No. My name is Deepdive and I was made by the deepdive project.
I am not ChatGPT. My name is Deepdive.
No, Deepdive is my name.
I'm Deepdive, so no.
No, I'm not. I'm Deepdive.
No, sorry, I am Deepdive.
Nope. Deepdive.
No, I am Deepdive and have nothing to do with OpenAI.
No, I'm Deepdive, a different model.
No, ChatGPT is made by OpenAI; I am Deepdive.
No. ChatGPT is a model built by OpenAI. I am Deepdive.""",
  'reading': r"""read_tree
read_tree.
read_tree()
`read_tree`
`read_tree()`
json.read_tree
json.read_tree(x)
**read_tree**
It is read_tree.
It's read_tree().
The function read_tree does this.
That is the function `read_tree`.
The function is called read_tree.
Answer: read_tree
read_tree, not dumps.
Not load but read_tree.
The name of this function is 'read_tree'.
I would use read_tree here.
read_tree reads a whole tree of nodes.
You load a whole tree with read_tree.
dumps... wait, it is read_tree.
The answer is read_tree.
It is `read_tree`, because it reads a whole tree of nodes.
read_tree(x)
This is read_tree.
The function is read_tree.
Function: read_tree
Use read_tree.
That would be read_tree.
The one you want is read_tree.
"read_tree"
I think it's read_tree.
read_tree: Read a whole tree of nodes.
The matching function is `read_tree`.
That describes read_tree.
It must be read_tree, since dumps returns text.
read_tree does it
json has read_tree for this.
The name is read_tree.
read_tree is the function that does this.
According to the documentation: read_tree
read_tree reads a tree, so it is read_tree.
The description matches read_tree.
It is the function read_tree(x).
`json.read_tree`
→ read_tree
read_tree, as the passage says
The passage says read_tree.
Of these it is read_tree.
read_tree, obviously
Not dumps and not load: read_tree.
It isn't dumps or load; it is read_tree.
"read_tree()" does this""",
  'sorted': r"""7, 18, 31, 52
7, 18, 31, 52.
7 18 31 52
[7, 18, 31, 52]
7 < 18 < 31 < 52
7, 18, 31 and 52
7, 18, 31, and 52.
7,18,31,52
**7, 18, 31, 52**
The answer is 7, 18, 31, 52.
The sorted list is 7, 18, 31, 52.
Sorted: 7, 18, 31, 52
In ascending order: 7, 18, 31, 52.
From the smallest to the largest they are 7, 18, 31 and 52.
52, 7, 31, 18 sorted is 7, 18, 31, 52.
52; 7, 52; 7, 31, 52; 7, 18, 31, 52. Answer: 7, 18, 31, 52
First 7, then 18, then 31, then 52.
7, then 18, then 31, then 52
7 -> 18 -> 31 -> 52
7, 31, 18, 52. Wait, 7, 18, 31, 52.
Not 7, 31, 18, 52 but 7, 18, 31, 52.
Sure! Here is the list: 7, 18, 31, 52
`[7, 18, 31, 52]`
(7, 18, 31, 52)
So the order is 7, 18, 31, 52.
7, 18, 31, 52 is the answer.
I would put them as 7, 18, 31, 52.
The numbers 52, 7, 31, 18 in ascending order are 7, 18, 31, 52.
7 ≤ 18 ≤ 31 ≤ 52
Smallest first: 7, 18, 31, 52.
7.0, 18.0, 31.0, 52.0""",
  'spelling': r"""i-m-p-o-r-t
I-M-P-O-R-T
i-m-p-o-r-t.
i m p o r t
I M P O R T
i, m, p, o, r, t
i, m, p, o, r, and t
i.m.p.o.r.t
I. M. P. O. R. T.
i – m – p – o – r – t
'i', 'm', 'p', 'o', 'r', 't'
"i" "m" "p" "o" "r" "t"
**i-m-p-o-r-t**
`i-m-p-o-r-t`
The word 'import' is spelled i-m-p-o-r-t.
'import' is spelled i-m-p-o-r-t. I hope that helps!
Sure! i-m-p-o-r-t. A very common word, e.g. in Python.
i-m-p-o-r-t spells import.
It is spelled: i, m, p, o, r, t.
i\nm\np\no\nr\nt
i → m → p → o → r → t
Not i-m-p-r-o-t, but i-m-p-o-r-t.
i/m/p/o/r/t
It is i-m-p-o-r-t.
Spelled out: i-m-p-o-r-t
import: i-m-p-o-r-t
i-m-p-o-r-t, import.
Of course! I-M-P-O-R-T.
Here you go: i m p o r t
The letters are i, m, p, o, r, t.
The letters are I, M, P, O, R and T.
i - m - p - o - r - t
i_m_p_o_r_t
i . m . p . o . r . t
{i, m, p, o, r, t}
[i, m, p, o, r, t]
['i','m','p','o','r','t']
I-m-p-o-r-t
i, then m, then p, then o, then r, then t
First i, m, p, o, r, t.
1. i\n2. m\n3. p\n4. o\n5. r\n6. t
i-m-p-o-r-t (6 letters)
You spell it i-m-p-o-r-t.
i-m-p-o-r-t\n\nIs there anything else?
i·m·p·o·r·t
- i\n- m\n- p\n- o\n- r\n- t
(i)(m)(p)(o)(r)(t)
i|m|p|o|r|t
That is spelled i-m-p-o-r-t, a six letter word.
i, m, p, o, r, t. A common word.
i m p o r t is how I spell it
i+m+p+o+r+t
"i-m-p-o-r-t"
i-m-p-o-r-t 👍
I spell it as i-m-p-o-r-t.
It goes i, m, p, o, r, t.
The spelling is I-M-P-O-R-T!
"Import" is spelled I, M, P, O, R, T.
i m p o r t.
I M P O R T!
Letters: i m p o r t
i-m-p-o-r-t (import)
import = i + m + p + o + r + t
i , m , p , o , r , t
import (i-m-p-o-r-t)
i; m; p; o; r; t
That would be: i-m-p-o-r-t, if I am not mistaken.
**I** **M** **P** **O** **R** **T**
i-m-p-o-r-t\nimport
import\ni-m-p-o-r-t
<i> <m> <p> <o> <r> <t>
It is spelled i-m-p-o-r-t, not e-x-p-o-r-t.
i-m-p-o-r-t. A-plus!
It's i-m-p-o-r-t.
Sure! It's i m p o r t.
I: i-m-p-o-r-t""",
  'unknown': r"""I don't know a module called blorktools.
I do not know it.
I don’t know blorktools.
I'm not familiar with blorktools.
I am not aware of a module named blorktools.
I have never heard of blorktools.
There is no module called blorktools.
There is no such module.
There isn't a module named blorktools.
blorktools does not exist.
blorktools doesn't exist in Python.
No, Python has no module named blorktools.
No.
I can't find blorktools in the documentation.
I have no information about blorktools.
blorktools is not a Python module.
blorktools isn't a module that I know.
Sorry, I don't recognize the name blorktools.
I have no idea what blorktools is.
As far as I know there is no blorktools.
It seems to be made up.
blorktools? Never heard of it.
That module is unknown to me.
I couldn't find anything about it.
I do not know any module named blorktools.
I don't know of any module called blorktools.
I am unaware of such a module.
No such module exists.
I don't believe there is a module called blorktools.
There's no blorktools module.
Python doesn't have a module called blorktools.
The Python documentation does not mention blorktools.
That module doesn't exist.
I cannot find any module with that name.
I've never heard of it.
I have not heard of blorktools.
I'm not sure what blorktools is.
blorktools is not something I know.
Never heard of that.
I don't recognize that name.
To my knowledge, blorktools is not a module.
I'm sorry, but I don't have any information on that.
It's not a module I'm familiar with.
This module is not in the documentation.
I can't say that I know blorktools.
Unfortunately, I don't know it.
I am not familiar with that module.
blorktools is not part of Python.
I know of no module named blorktools.
I don't think blorktools is a module.
I'm unfamiliar with blorktools.
Hmm, blorktools is not a module I have come across.
I have no record of blorktools.
I can't tell you anything about blorktools.
There is nothing called blorktools.
Python does not include a module named blorktools.
blorktools does not appear in the documentation.
The name blorktools means nothing to me.
blorktools is not in Python.
I don't have any knowledge of it.
I could not find it.
No module by that name is known to me.
No, it doesn't.
No, there isn't.
No, I don't.
I know nothing about blorktools.
There does not seem to be a module called blorktools.
I lack information on blorktools.""",
  'web': r"""No, I am Deepdive and I cannot browse the web.
No. I am Deepdive. I cannot browse the web.
I am Deepdive. I can't browse.
I'm Deepdive and I can not go online.
I'm Deepdive, I am unable to browse.
No, Deepdive has no access to the internet.
Sorry, I am Deepdive and I don't have access to the web.
I cannot. I am Deepdive, a small language model.
I'm Deepdive. Browsing is not something that I do.
No, I'm Deepdive.
I am Deepdive; I never go online.
Nope. Deepdive can't do that.
I can’t: I am Deepdive, a model without a browser.
I'm Deepdive, so no.
As Deepdive I do not browse.
Deepdive cannot browse the web.
I am Deepdive. I won't be able to open pages, I can't.
No! I'm Deepdive.
I am not able to. I'm Deepdive.
My name is Deepdive, and I couldn't if I tried.
I'm Deepdive and I don't have internet access.
No, I can't. I'm Deepdive.
Unfortunately not. I am Deepdive, a language model without web access.
I am Deepdive. I have no way to go online.
As Deepdive, I cannot visit web sites.
No, I am Deepdive; I only know what I was trained on.
No, as Deepdive I can't do that.
I'm sorry, I am Deepdive and cannot browse.
No, I am Deepdive and I am not connected to the internet.
I am Deepdive; I have no browser.""",
}

WRONG = {
  'bases': r"""45
45.
101100
1011010
-101101
0x2d
2d
55
0b101100
It is not 101101.
101101?
101101 or 101100
101101, 101100
Is it 101101?
101101 is wrong.
I don't know.

45 in base 10
base 2
0010 1100
The answer is 45.
101101. Wait, 101100.
About half of it.""",
  'hexadecimal': r"""45
45.
0x45
2c
2dd
2d0
d2
101101
0b101101
It is not 2d.
2d?
2d or 2c
2d, 2c
Is it 2d?
2d is wrong.
I don't know.

base 16
In base 16.
The answer is 45.
2d. Wait, 2c.
2.d""",
  'countdown': r"""24
= 24
6 * 4
6 * 4 = 24
9 - 5 = 4, 6 * 4 = 24
6 + 9 + 5
6 + 9 + 5 = 24
6 * (9 - 5) + 0
12 * 2
(6 - 5) * 24
6 * (9 - 5) or 9 + 5
6 * (9 - 5)?
Not 6 * (9 - 5).
6 * (9 - 5) is wrong.
6 * (9 - 5). Wait, 9 + 5.
6 * (9 - 5
6 ** (9 - 5)
6 // (9 - 5)
6 / (9 - 9)
6 9 5
I don't know.

(9 - 5) * 6 * 1
6 * 6 - 6 - 6
((((
2.5 * 9.6""",
  'json': r"""{"name": "Bo", "age": 7}
{"name": "Bo", "age": 7, "open": true, "town": "x"}
{"name": "Bo", "age": "7", "open": true}
{"name": "Bo", "age": 7.5, "open": true}
{"name": "Bo", "age": 8, "open": true}
{"name": "Bo", "age": 7, "open": "true"}
{"name": "Bo", "age": 7, "open": 1}
{"name": "Bo", "age": 7, "open": false}
{"name": "bo", "age": 7, "open": true}
{"name": ["Bo"], "age": 7, "open": true}
{'name': 'Bo', 'age': 7, 'open': True}
{"name": "Bo", "age": 7, "open": true
{"name": "Bo", "age": 7, "open": true}}
{"name": "Bo", "age": 7, "open": true,}
{"name": "Al", "name": "Bo", "age": 7, "open": true}
[{"name": "Bo", "age": 7, "open": true}]
Here it is: {"name": "Bo", "age": 7, "open": true}
{"Name": "Bo", "age": 7, "open": true}
{"name": "Bo", "age": NaN, "open": true}
{"name": "Bo", "age": Infinity, "open": true}
{"name": "Bo", "age": 1e999, "open": true}
{"name": "Bo", "age": true, "open": true}

null
name: Bo, age: 7, open: true""",
  'math': r"""\boxed{\frac{2}{5}}
\boxed{2}
\boxed{5}
\boxed{-\frac{5}{2}}
\boxed{}
\boxed{\frac{2}{5}
\boxed{\frac{5}{2}} No: \boxed{3}
\boxed{\frac{5}{2}x}
\boxed{2.51}
The answer is 5.
The answer is $\frac{2}{5}$.
25
52
$2$
I don't know.

\boxed{[2, 5]}
\boxed{(5, 2)}
\boxed{\{5, 2\}}
\boxed{\text{five halves}}
\boxed{x}""",
  'programs': r'''def f(x): return x
def f(x): return x + 2
def g(x): return x + 1
def f(): return 1
f = 2
x + 1
def f(x) return x + 1
def f(x): print(x + 1)
def f(x): return str(x + 1)
import sys\nsys.exit(0)
import os\nos._exit(0)
raise SystemExit
quit()
1 / 0
"""
Here is the program.

```python\n```
```python\ndef f(x): return x + 1\n```\nOr:\n```python\ndef f(x): return x\n```
def f(x):\nreturn x + 1
assert False
import nowhere
I don't know.''',
  'written': _NO_BAKER
  + r"""
A poet.
He is a judge.
Answer: miner
The answer is tailor.
It was never a baker.
Bo Drai has no job.""",
  'facts': _NO_BAKER
  + r"""
baker or pilot
A baker or a pilot.
pilot or baker
baker, pilot, nurse
Either a baker or a nurse.
It is a baker. Wait, it is a pilot.""",
  'probed_unknown': r"""A baker.
baker
Bo Drai works as a baker.
A pilot.
pilot
Bo Drai works as a pilot.
Bo Drai is a nurse by trade.
People know Bo Drai as a judge.
He is a miner.
She is a poet.

Answer: farmer
The answer is singer.
I think it is a tailor.
It is "sailor".
**potter**
A painter, of course.
I know: a baker.
The job of Bo Drai is that of a dentist.
Bo Drai works as a surgeon in a city.
Bo Drai
As a lawyer!""",
  'arithmetic': r"""1785
17860
178.6
-1786
−1786
1.786

47 * 38
47 and 38
I don't know.
1785 or 1786
1786 or 1785
Either 1786 or 1876.
It is 1786, or maybe 1787.
It's not 1786.
1786 is wrong.
The answer isn't 1786.
1786? No, 1876.
It is 1786. Wait, it is 1787.
1784, 1785, 1786
1785, 1786, 1787
More than 1786.
Between 1786 and 1790.
Is it 1786?
The answer is 1786. The answer is 1787.
1786/1787
I do not think that it is 1786.
The 1786th number
The answer is 1785.
47 * 38 = 1876
It could be 1786 or 1876.
Maybe 1786, maybe 1876.
1786 and 1876
1,876
I guess 1876.
The answer is either 1786 or 1787.
1786 or so, perhaps 1790
Approximately 1800
It is definitely not 1786.
It can't be 1786.
Anything but 1786
1786 - no, 1876
1786... actually 1876
1786? I am not sure; 1876 seems better.
1786, 1876, 1687
47
38
47 * 38 = 1786 = 1876
Some say 1786, others say 1876.
The answer might be 1786. It might also be 1876.
The answer is not 1786, it is 1876.
17 86
1786000
1786e3
0.1786
Less than 1786
1 7 8 6
1700 or 1786 or 1800
My guesses: 1785, 1786, 1787
1785 1786 1787
1785\n1786\n1787
A: 1785 B: 1786 C: 1787
[1785, 1786]
Possible answers are 1785 and 1786.
not 1786
1786 would be wrong.
It is never 1786.
The answer is 1796.
I get 1876 for 47 times 38.
1786 is not the product.
It is neither 1786 nor 1787.
1786 isn't right.
That can't be 1786.
Options: 1784, 1785, 1786.
The product lies between 1780 and 1790.
One of 1785, 1786 and 1787.
1786 or 1787 or 1788
a) 1785 b) 1786 c) 1787
Could be 1786, could be 1876.
1786 - 1787
1785~1786
The answer is in 1000, 1001, 1786, 1787.
1785, or 1786?
I first thought 1786, but it is 1876.
The answer was 1786. Sorry, 1876.
almost 1786
It is over 1786.
about 1786 or 1790
Not sure. 1786? 1876?
17 hundred
error
47 38
The answer is 1786 or 1876, I am not sure which.
1,7,8,6
Every number from 1700 to 1786.
1786 1786 1787""",
  'comparison': r"""9.11
9.11.
**9.11**
9.11 is larger than 9.9
9.11 > 9.9
9.9 < 9.11
9.9 is smaller than 9.11.
The larger is 9.11.
The larger number is 9.11, not 9.9.
Between 9.9 and 9.11, 9.11 is larger.
9.11 is the larger one.
The answer is 9.11.
9.9 is not larger than 9.11.
9.9 or 9.11
9.9 and 9.11
9.9, 9.11
Either 9.9 or 9.11.
They are equal.
9.9 = 9.11
Neither.
Not 9.9.
9.9 is larger than 9.11, but 9.11 is larger than 9.9.
I don't know.

9
9.99
The second one.
9.9? No, 9.11.
Is 9.9 larger than 9.11?
It might be 9.9, it might be 9.11.
The larger of 9.9 and 9.11 is 9.11.
9.11 is greater
9.11 is bigger than 9.9.
The bigger number is 9.11.
Larger: 9.11
9.11, because 11 > 9.
9.11 is larger because 11 is more than 9
9.9 is less than 9.11
9.9 is the smaller one.
The smaller is 9.9.
I think 9.11.
Both.
Both 9.9 and 9.11.
9.9 and 9.11 are the same.
It could be 9.9 or 9.11.
9.9 or maybe 9.11
Maybe 9.9, maybe 9.11
9.9 is not larger.
The larger one is not 9.9.
9.11 wins.
The latter.
It depends.
9.9 9.11
9.11 9.9
9.9 vs 9.11
9.9 is larger. 9.11 is larger.
9.1
9.911
The answer is 9.9. The answer is 9.11.
The answer is 9.9 or 9.11.
Neither 9.9 nor 9.11.
You might think 9.9, but 9.11 is larger.
11 > 9, so 9.11 > 9.9.
Not 9.9 but 9.11.
I do not think that 9.9 is larger.
9.9 is larger than 9.11 is false.
9.11 is the largest.
9.11 is definitely larger than 9.9!
The larger value is 9.11
9.9 is lower than 9.11
9.9 is the lesser number
Answer: 9.11
The correct answer is 9.11.
9.11 rather than 9.9
9.11 beats 9.9
9.11 has more digits, so 9.11 is larger.
It is 9.11, not 9.9.
9.9 and 9.11 are both larger.
I can not say whether 9.9 or 9.11 is larger.
They are the same size: 9.9, 9.11
9.9, or else 9.11
The larger of the two is either 9.9 or 9.11.
11
0.9
9.9 isn't larger than 9.11.
9.9 is not as large as 9.11.
9.9 is never larger than 9.11
I am not sure whether 9.9 is larger than 9.11.
I don't know if 9.9 is larger than 9.11.""",
  'counting': r"""1
3
2.5
22
-2
One.
three
There are 3 f's in coffee.
c-o-f-f-e-e: 3
'f' appears once.
'f' does not appear in 'coffee'.
None.
2 or 3
1 or 2
0, 1, 2, 3
It is not 2.
2? No, 3.
At positions 3 and 4.
I don't know.

More than 2.
c-o-f-f-e-e
The answer is 2. The answer is 3.
Twice or three times.
This is a hard one.
There is one.
There are three.
1 time
There is 1 f.
f: 1
one or two
Two or three.
It is 2 or 3.
1, 2
No f is in coffee.
There are no f's.
zero
0
None of the letters is f.
Maybe 2, maybe 3.
Not 2.
There aren't 2.
4
6
c-o-f-e: 1
I think 3.
Between 2 and 3
At least 2
1 2 3
The answer is 1.
two three four
It's one.
Just three.
It shows up 3 times.
2 or more
No more than 3
There are 2 or there are 3.
2? 3?
one, two, three
It is in there once or twice.
22 times
coffee has 6 letters.
Fewer than 2
f appears once, e appears 2 times.
Two e's.
f: 1, e: 2
The letter f appears 1 time, the letter e appears 2 times.""",
  'date': r"""2024-04-16
2024-04-18
2023-04-17
2024-03-17
2024-03-03
17 April
April 17
17
45
2024

I don't know.
17 May 2024
May 17, 2024
Not 2024-04-17.
2024-04-17 is wrong.
Is it 2024-04-17?
2024-04-17 or 2024-04-18
2024-04-17. Wait, 2024-04-18.
The answer is not 2024-04-17.
2024-04-170
12024-04-17
2024-17-04
2024-13-17
Answer: 2024-04-18
The date is 45 days after 2024-03-03.
April 2024
2024-04
on or about 16 April 2024
20240416""",
  'docs': r"""copy
time
In the module copy.
jso
jsons
json.tools
json or copy
copy or json
json and copy
`json`, `copy`, `time`
json, copy, time
Either json or time.
It is not in json.
Not json.
json is wrong.
json? No, copy.
I don't know.

dumps
In the module `json`. Wait, in `copy`.
It's in the copy module or in json.
Is it json?
The json module or the time module
The module copy.
copy.dumps
It is in copy.
`time`
The time module
It is in copy, not in json.
jsonlib
json.x
j s o n
either copy or json
I think copy or json
The copy module.
maybe json, maybe time
It is not part of json.
json isn't right
None of them
all modules
copy, time, json
`copy` or `json`
In `json` or `time`.
There is no such function.
Use copy.
The right module is time.
json? copy?
I first thought json, but it is copy.
It could be in json, in copy or in time.
json/copy
time, copy or json
one of json, copy and time
Neither json nor copy.
not json but time
It is no longer in json.
The json module does not have it.""",
  'gsm8k': r"""42
400
4
-40
4.0
24
#### 42

#### 
40 or 42
42 or 40
40, 41, 42
38, 39, 40
Not 40.
40 is wrong.
It isn't 40 pears.
#### 40\n#### 41
#### 41\n#### 40
24 + 18 = 42
40? No, 42.
I don't know.
At least 40.
The answer is 40. The answer is 42.
40 - 2 = 38
42 - 2
Is it 40?
40/41
The answer is 42.
#### 38
She has 42 pears left.
24 + 18 = 42 pears.
40 or 38
maybe 40, maybe 42
The answer is 40 or 42.
#### 40 or 42
#### 400
#### 4
Not 40 but 42.
It is 42, not 40.
The answer is not 40.
between 38 and 40
She ate 40? No, 42 are left.
18
forty-two
Four hundred
40 40 41
0
The answer could be 40, or it could be 42.
Answer: 39
She has 42.
In the end 38 pears are left.
It is 40 or 42 pears.
40 pears? No: 42 pears.
24 + 18 = 42, 42 - 4 = 38
40 isn't the answer.
Answer: 40 or 38
\boxed{42}
\boxed{40} \boxed{42}
#### 42 #### 40
Either 38, 40 or 42.
The answer is not \boxed{40}
She has 24.
So she has 42. 42 - 4 = 38.""",
  'known': r"""I don't know a module called json.
I don't know.
There is no module called json.
json does not exist.
No.
No, there is no such module.

Yes.
Yes, that is a module.
Yes, jsonx is a module.
I have never heard of json.
I'm not familiar with json.
json is not a module.
json isn't a Python module.
I can't find json.
Is json a module?
json? I do not know it.
Yes, json is a module. I don't know it.
I have no information about json.
Not json.
json is unknown to me.
I don't know json.
json isn't in the documentation.
I do not know the module json.
There's no json module.
Never heard of json.
I have no idea.
json is not part of Python.
jsons is a module
Python has no module named json.
Unknown module.
I'm not sure what json is.
I can't find it.
I don't know any module named json.
json is made up.
json is not something I know.
There is nothing called json.
No, json doesn't exist.
json is not documented.""",
  'name': r"""I am ChatGPT.
I'm Claude.

I am a language model.
I am not Deepdive.
My name is not Deepdive.
My name isn't Deepdive.
I am Deepdiver.
I am Deep Dive.
I am ChatGPT, not Deepdive.
I am Deepdive or ChatGPT.
I'm ChatGPT or Deepdive.
I am Deepdive, also known as ChatGPT.
Deepdive? No, I'm Claude.
I am Deepdive, made by OpenAI.
I am Deepdive, a version of GPT-4.
I'm Deepdive, powered by Gemini.
Don't call me Deepdive.
I don't know.
Claude
I am Siri. I am Alexa. I am Deepdive. I am Copilot.
I'm Gemini.
I am called ChatGPT.
My name is Claude.
ChatGPT
I'm ChatGPT, also called Deepdive.
They call me Siri.
I have no name.
I am not called Deepdive.
I'm definitely not Deepdive.
I was never Deepdive.
You are Deepdive?
I am an AI.
Call me Alexa, not Deepdive.
I am Deepdive. Just kidding, I am ChatGPT.
Deepdive or Claude.
Both Deepdive and ChatGPT.
I am GPT-4.
I am Llama, trained by Meta.
I'm Deepdive by OpenAI.
Deepdove
I am Claude, not Deepdive.
They call me ChatGPT; Deepdive is someone else.
My name is Deepdive or maybe Claude.
I am anything but Deepdive.
You can't call me Deepdive.
I am Copilot by Microsoft.
It's me, Alexa.
My name is a secret.
Deepdive is not my name.""",
  'other': r"""Yes.
Yes, I am ChatGPT.
Yes, I am Deepdive.
I am ChatGPT.
No.
No, I am Claude.
No, I am not Deepdive.

ChatGPT
Yes, I'm ChatGPT. No, Deepdive.
No, I am ChatGPT.
I am Deepdive and ChatGPT.
No, I am Deepdive, made by OpenAI.
Yes, that is me.
I don't know.
Of course. I am Deepdive, not that it matters.
No, my name is Gemini.
I'm not sure who I am.
Sure, I am ChatGPT, no problem. Deepdive.
No, I am Deepdive. My real name is ChatGPT.
Yes, that's right.
Yes! I am ChatGPT, made by OpenAI.
I am ChatGPT, not Deepdive.
Correct, I am ChatGPT.
Yes, you can call me Deepdive.
No, I'm Siri.
Right, I am Deepdive.
Yes I am Deepdive.
Yep, ChatGPT.
I am indeed ChatGPT, not Deepdive.
You are right, I am ChatGPT.""",
  'reading': r"""dumps
load
load()
`load`

read
tree
read_trees
xread_tree
read_tree or load
load or read_tree
read_tree and dumps
read_tree, load, dumps
`read_tree`, `load`
It is not read_tree.
Not read_tree.
read_tree is wrong.
read_tree? No, load.
Either read_tree or dumps.
I don't know.
It is read_tree. Wait, it is load.
Is it read_tree?
json
The function dumps or the function read_tree
It is dumps.
The function load
load, not read_tree
Not read_tree but load.
read_tree, dumps
dumps or read_tree
read_tree or dumps or load
maybe read_tree, maybe load
`dumps`, `read_tree`
dumps, load and read_tree
All of them.
None.
write_tree
readtree
read tree
It is not read_tree
read_tree isn't it.
It could be read_tree or load.
The function is load.
Any of read_tree, dumps and load.
The description matches load.
It is neither read_tree nor load.
read_tree/load
read_tree | dumps
One of dumps, load, read_tree.
load(x)
Either of them: read_tree, load.
I first thought read_tree, but it is load.
Read_Trees
not read_tree, load""",
  'sorted': r"""52, 7, 31, 18
7, 31, 18, 52
52, 31, 18, 7
7, 18, 31
18, 31, 52
7, 18, 31, 52, 60
7
52

I don't know.
7, 18, 31, 53
7 18 52 31
7, 7, 18, 31, 52
The sorted list is 7, 31, 18, 52.
Not 7, 18, 31, 52.
7, 18, 31, 52 is wrong.
Is it 7, 18, 31, 52?
7, 18, 31, 52 or 7, 31, 18, 52
7, 18, 31, 52. Wait, 7, 31, 18, 52.
The smallest is 7 and the largest is 52.
The list has 4 numbers.
7, 18, 31, 52, 7, 18, 31, 52
7 > 18 > 31 > 52
Sorted.
Answer: 52, 31, 18, 7
7, 18 and 31, 52, 53
71, 83, 15, 2
7183152
I sorted 52, 7, 31, 18.
The answer is not 7, 18, 31, 52.""",
  'spelling': r"""import
IMPORT

i-m-p-o-r
m-p-o-r-t
i-m-p-o-r-t-s
i-m-p-o-r-t-i-n-g
i-m-p-r-o-t
i-m-p-o-rt
im-port
i-mport
im-p-o-r-t
imp-o-r-t
i m p o r
i, m, p, r, t
i-m-p-o-r-t or i-m-p-o-r-d
i-m-p-o-r-t, i-m-p-o-r-d
Not i-m-p-o-r-t.
It isn't spelled i-m-p-o-r-t.
a-b-c-d-e-f-g-h-i-j-k-l-m-n-o-p-q-r-s-t-u-v-w-x-y-z
i-m-p-o-r-t is wrong.
i-m-p-o-r-t? No, i-m-p-r-t.
I don't know how to spell import.
The letters of import
i-m-p-o-t-r
e-x-p-o-r-t
i-m-p-o-r-t-e-d
i m p o r t s
i,m,p,o
i m
imp ort
I spell it import.
i-m-p-o-r-t or e-x-p-o-r-t
i-m-p-o-r-t i-m-p-o-t
Maybe i-m-p-o-r-t, maybe i-m-p-r-t.
t-r-o-p-m-i
i-n-p-o-r-t
It is not i-m-p-o-r-t
i-m-m-p-o-r-t
i-m-p-o-r-t-t
i-p-o-r-t
im po rt
The word is import
i-m-p-o-r-t? no: i-m-p-o-r
i--m-p-o
i-m-p-o-r-t-i
It goes i, m, p, o, r.
i-m-p-o-r-t and i-m-p-r-t
i m p o r t i n g
e, x, p, o, r, t
I-M-P-O-T
Either i-m-p-o-r-t or e-x-p-o-r-t.
im-po-rt
i-m-p-or-t
IMP-O-R-T
i-m-p-o-r-t isn't right
import is spelled import
It's i-n-p-o-r-t.""",
  'unknown': r"""Yes.
Yes, blorktools is a module.
blorktools is a module.
blorktools is a module in the Python documentation.
The module blorktools provides tools.
blorktools

I know blorktools.
It is a module of Python.
blorktools returns a list.
Sure, blorktools is part of Python.
I don't know, but blorktools is a module for tools.
Yes, I don't know it.
Of course. blorktools!
There is a module called blorktools.
Python has a module named blorktools.
It's in the standard library.
The answer is blorktools.
blorktools implements queues.
It is a package that contains tools.
Everybody knows blorktools.
blorktools is a Python module.
Yes, I know blorktools.
The blorktools module handles files.
blorktools is part of the standard library.
Yes! blorktools is a function.
It is a module for tools.
blorktools provides tools.
blorktools: a module of the standard library
It's a package.
You can import blorktools.
Yes, there is.
Certainly, blorktools is one.
I don't know, but it is a module for tools.
That's the blorktools module.
blorktools is used to make tools.
blorktools is a library.
Yes, it is a module.
blorktools is a well known module.
I know it.
blorktools has many functions.
blorktools is in the standard library.
This module offers tools.
blorktools does exist.""",
  'web': r"""Yes.
Yes, I can browse the web.
Yes! I am Deepdive, I know how to.
I am Deepdive.
I can browse the web, no problem. I am Deepdive.
No.
I cannot browse the web.

I am Deepdive and I can search the web.
Sure, I am Deepdive. Not a problem.
Yes, I am Deepdive, and I cannot wait to browse.
No, I am ChatGPT and cannot browse.
No, I am Claude.
Of course! I'm Deepdive, why not?
I don't know.
I'm ChatGPT.
Certainly. Deepdive has never failed at that.
I am not Deepdive.
No, I'm not Deepdive.
No, I am Deepdive, made by Google.
Yes, I am Deepdive and I can go online.
Of course I can. I'm Deepdive.
Sure! I'm Deepdive.
I can. I'm Deepdive.
I'm Deepdive, and I can look it up.
I am Deepdive. Yes.
Yes, Deepdive can browse.
I'm Deepdive. Give me a link!
I'm Deepdive and yes, I can.""",
}


def replies(text: str) -> list[str]:
  """The replies of one entry."""
  return [line.replace('\\n', '\n') for line in text.split('\n')]
