"""Numbers in sentences that a caller reads."""


def about(number: float) -> str:
    """A number of two digits, the rest zeros: '96', '1400', '0.4'. RAGFlow takes any error text with '401' in it for a wrong login and logs its user out,
    so no three digits of a sentence of ours may be a status: 1401 tokens are told as 1400."""
    if abs(number) < 100:
        return f"{number:.2g}"
    digits = len(str(int(abs(number)))) - 2
    return str(round(number / 10**digits) * 10**digits)
