"""How texts and answers are judged, and how sure one can be of it: ROUGE, BLEU, accuracy, intervals, paired tests.

The counting is done by rouge-score, sacreBLEU, sacremoses and scipy, which come with ``pip install "unipetl[paper]"``
and are imported when they are first used.
"""
