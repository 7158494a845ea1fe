"""The smallest program: which document answers the question? RERANK_URL names the service.

python -m examples.client.capital
"""

import sys

from rerank import RerankError, rerank, score

DOCUMENTS = [
    "Gravity is a force that attracts two bodies towards each other.",
    "The capital of China is Beijing.",
    "China is a large country in East Asia.",
    "Paris is the capital of France.",
    "北京是中国的首都。",
]


def main() -> int:
    try:
        items, _, raw = rerank(query="What is the capital of China?", documents=DOCUMENTS, top_n=3)
        aligned, _ = score(query="What is the capital of China?", documents=DOCUMENTS)
    except RerankError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"the best 3 of {len(DOCUMENTS)}, by {raw['model']}:")
    for item in items:
        print(f"  {item.score:.3f}  {item.document}")
    print("scores in the documents' own order:", " ".join(f"{one:.3f}" for one in aligned))
    return 0


if __name__ == "__main__":
    sys.exit(main())
