"""Regular expressions with look-ahead and word boundaries, as clients send them."""

# Real-world expressions, with texts that match, and texts that do not
KNOWN: dict[str, tuple[list[str], list[str]]] = {
    r"^(?=.*\d).{8,}$": (["abcdefg1", "1" * 30], ["abcdefgh", "abc1"]),
    r"^(?=.*[a-z])(?=.*[A-Z])(?=.*\d).{8,}$": (["aaaaaaA1", "1Aa" * 5], ["aaaaaaaa1", "aA1"]),
    r"^((25[0-5]|2[0-4]\d|1?\d?\d)(\.(?!$)|$)){4}$": (
        ["1.2.3.4", "255.250.199.0"],
        ["1.2.3", "1.2.3.4.", "256.1.1.1"],
    ),
    r"\bfoo\b": (["foo"], ["foo ", "food", ""]),
    r"\b\w+\b(\W+\b\w+\b)*": (["foo bar", "a"], ["foo ", " foo"]),
    # pydantic's, for a Decimal
    r"^(?!^[-+.]*$)[+-]?0*\d*\.?\d*$": (["1", "-0.5", ".5", "+7."], ["", "-", "+.", "1.2.3"]),
    # zod's, for an e-mail address
    r"^(?!\.)(?!.*\.\.)([A-Za-z0-9_'+\-\.]*)[A-Za-z0-9_+-]@"
    r"([A-Za-z0-9][A-Za-z0-9\-]*\.)+[A-Za-z]{2,}$": (
        ["a@b.co", "o'neil.x+y@a-b.example.org"],
        [".a@b.co", "a..b@b.co", "a.@b.co", "a@-b.co", "a@b..co", "a@b.c"],
    ),
    r"^((?!foo).)*$": (["", "fo", "bar fo o"], ["foo", "a foo b"]),
    r"^(?!(con|nul)$)[a-z]{1,8}$": (["co", "cons"], ["con", "nul", ""]),
    r"^P(?!$)(\d+Y)?(\d+D)?(T(?=\d)(\d+H)?(\d+S)?)?$": (["P1Y", "PT5S", "P1DT1H"], ["P", "P1DT"]),
    r"^(?!000|666)\d{3}-(?!00)\d{2}$": (["123-45"], ["000-11", "666-11", "123-00"]),
    r"^(?<year>(?!0)\d{4})\/(?=1|0)\d\d$": (["1999/12"], ["0999/12", "1999/22"]),
    "(?=[\u00e9\\u{1F600}-\\u{1F610}\\]^[-]).{2}": (["\u00e9a", "\U0001f605x", "^-"], ["aa", "_a"]),
}
