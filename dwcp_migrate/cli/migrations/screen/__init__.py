"""The screen of `top`.

Modules:
    keyboard: keys that are pressed while a command draws
    picture: the picture, a pure function of answers
    sparkline: the last values of a quantity as a row of small columns
    watching: the loop that asks the agent, draws, and obeys keys
"""
