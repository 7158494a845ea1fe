"""Searches your own files: words find candidates, the reranker says which of them answer. RERANK_URL names the service.

python -m examples.client.search docs "How long does RAGFlow wait?"
"""

import math
import re
import sys
from collections import Counter
from pathlib import Path

from rerank import RerankError, rerank

CANDIDATES, SHOWN = 30, 5


def passages(folder: Path) -> list[tuple[str, str]]:
    """Paragraphs of the folder's .md and .txt files, a heading with the first one under it; each with 'file:line'."""
    found = []
    for file in sorted(path for path in folder.rglob("*") if path.suffix in (".md", ".txt")):
        text = file.read_text(encoding="utf-8", errors="replace")
        for match in re.finditer(r"(?:^#+ .*\n\s*)?(?:^.*\S.*\n?)+", text, re.MULTILINE):
            found.append((f"{file}:{text.count(chr(10), 0, match.start()) + 1}", match[0].strip()))
    return found


def words(text: str) -> list[str]:
    """Words in small letters; of Chinese and Japanese each character."""
    return re.findall(r"[\u3040-\u9fff]|[^\W\u3040-\u9fff]+", text.lower())


def candidates(query: str, texts: list[str]) -> list[int]:
    """Places of the texts with the rarest of the query's words, by BM25; none that has no word of it."""
    counts = [Counter(words(text)) for text in texts]
    spread = Counter(word for count in counts for word in count)
    mean = sum(count.total() for count in counts) / max(1, len(counts))

    def weight(count: Counter[str]) -> float:
        rarity = {word: math.log(1 + len(texts) / spread[word]) for word in set(words(query)) & count.keys()}
        return sum(rare * count[word] * 2.2 / (count[word] + 1.2 * (0.25 + 0.75 * count.total() / mean)) for word, rare in rarity.items())

    weights = [weight(count) for count in counts]
    return sorted((place for place in range(len(texts)) if weights[place]), key=lambda place: -weights[place])[:CANDIDATES]


def main(folder: str, query: str) -> int:
    found = passages(Path(folder))
    chosen = [found[place] for place in candidates(query, [text for _, text in found])]
    if not chosen:
        print(f"no .md or .txt file in {folder} has a word of that", file=sys.stderr)
        return 1
    try:
        items, _, _ = rerank(query=query, documents=[text for _, text in chosen], top_n=SHOWN)
    except RerankError as error:
        print(error, file=sys.stderr)
        return 1
    for item in items:
        print(f"{item.score:.3f}  {chosen[item.index][0]}\n       {' '.join(item.document.split())[:200]}")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]) if len(sys.argv) == 3 else "usage: python -m examples.client.search FOLDER QUESTION")
