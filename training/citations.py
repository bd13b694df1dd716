"""The papers behind each recipe, as BibTeX: `xmc-train cite RECIPE` prints what you ran."""

from __future__ import annotations

MACH = """@inproceedings{medini2019mach,
  title     = {Extreme Classification in Log Memory using Count-Min Sketch: A Case Study of Amazon Search with 50M
               Products},
  author    = {Medini, Tharun and Huang, Qixuan and Wang, Yiqiu and Mohan, Vijai and Shrivastava, Anshumali},
  booktitle = {Advances in Neural Information Processing Systems},
  year      = {2019}
}"""

DECLARE = """@misc{declare,
  title        = {{DECLARE}},
  howpublished = {OpenReview, forum MIZAzmfsGz},
  note         = {Workshop paper}
}"""

UNIDEC = """@inproceedings{unidec2025,
  title     = {UniDEC: Unified Dual Encoder and Classifier Training for Extreme Multi-Label Classification},
  booktitle = {Proceedings of the ACM Web Conference},
  year      = {2025}
}"""

HALKO = """@article{halko2011,
  title   = {Finding Structure with Randomness: Probabilistic Algorithms for Constructing Approximate Matrix
             Decompositions},
  author  = {Halko, Nathan and Martinsson, Per-Gunnar and Tropp, Joel A.},
  journal = {SIAM Review},
  volume  = {53},
  number  = {2},
  year    = {2011}
}"""

DEXML = """@inproceedings{gupta2024dexml,
  title     = {Dual-Encoders for Extreme Multi-Label Classification},
  author    = {Gupta, Nilesh and Khatri, Devvrit and Rawat, Ankit S. and Bhojanapalli, Srinadh and Jain, Prateek and
               Dhillon, Inderjit S.},
  booktitle = {International Conference on Learning Representations},
  year      = {2024}
}"""

GANDALF = """@inproceedings{kharbanda2024gandalf,
  title     = {Learning Label-Label Correlations in Extreme Multi-Label Classification via Label Features},
  author    = {Kharbanda, Siddhant and Gupta, Devaansh and Schultheis, Erik and Banerjee, Atmadeep and
               Hsieh, Cho-Jui and Babbar, Rohit},
  booktitle = {ACM SIGKDD Conference on Knowledge Discovery and Data Mining},
  year      = {2024}
}"""

DISMEC = """@inproceedings{babbar2017dismec,
  title     = {{DiSMEC}: Distributed Sparse Machines for Extreme Multi-label Classification},
  author    = {Babbar, Rohit and Sch{\\"o}lkopf, Bernhard},
  booktitle = {ACM International Conference on Web Search and Data Mining},
  year      = {2017}
}"""

ASTRA = """@misc{astra2024,
  title        = {{ASTRA}: Accurate and Scalable {ANNS}-based Training of Extreme Classifiers},
  howpublished = {arXiv 2409.20156},
  year         = {2024}
}"""

NGAME = """@inproceedings{dahiya2023ngame,
  title     = {{NGAME}: Negative Mining-aware Mini-batching for Extreme Classification},
  author    = {Dahiya, Kunal and Gupta, Nilesh and Saini, Deepak and Soni, Akshay and Wang, Yajun and Dave, Kushal and
               Jiao, Jian and Gururaj, K. and Dey, Prasenjit and Singh, Amit and Hada, Deepesh and Jain, Vidit and
               Paliwal, Bhawna and Mittal, Anshul and Mehta, Sonu and Ramjee, Ramachandran and Agarwal, Sumeet and
               Kar, Purushottam and Varma, Manik},
  booktitle = {ACM International Conference on Web Search and Data Mining},
  year      = {2023}
}"""

MINILM = """@inproceedings{wang2020minilm,
  title     = {{MiniLM}: Deep Self-Attention Distillation for Task-Agnostic Compression of Pre-Trained Transformers},
  author    = {Wang, Wenhui and Wei, Furu and Dong, Li and Bao, Hangbo and Yang, Nan and Zhou, Ming},
  booktitle = {Advances in Neural Information Processing Systems},
  year      = {2020}
}"""

SBERT = """@inproceedings{reimers2019sbert,
  title     = {Sentence-{BERT}: Sentence Embeddings using Siamese {BERT}-Networks},
  author    = {Reimers, Nils and Gurevych, Iryna},
  booktitle = {Conference on Empirical Methods in Natural Language Processing},
  year      = {2019}
}"""

XR_TRANSFORMER = """@inproceedings{zhang2021xrtransformer,
  title     = {Fast Multi-Resolution Transformer Fine-tuning for Extreme Multi-label Text Classification},
  author    = {Zhang, Jiong and Chang, Wei-Cheng and Yu, Hsiang-Fu and Dhillon, Inderjit S.},
  booktitle = {Advances in Neural Information Processing Systems},
  year      = {2021}
}"""

CITATIONS: dict[str, tuple[str, ...]] = {
    "mach": (MACH,),
    "mach-independent": (MACH,),
    "declare": (DECLARE, HALKO),
    "declare-paper": (DECLARE, HALKO),
    "unidec": (UNIDEC, DEXML),
    "unidec-paper": (UNIDEC, DEXML, NGAME),
    "depsl": (UNIDEC, DEXML),
    "ova": (DISMEC, ASTRA),
    "ova-full": (DISMEC,),
    "ova-pruned": (DISMEC, DECLARE),
    "astra": (ASTRA,),
    "mach-frozen": (MACH, MINILM, SBERT),
    "unidec-transformer": (UNIDEC, DEXML, MINILM, SBERT),
    "mach-reranked": (MACH, DISMEC, XR_TRANSFORMER),
    "declare-reranked": (DECLARE, HALKO, DISMEC, XR_TRANSFORMER),
    "unidec-reranked": (UNIDEC, DEXML, DISMEC, XR_TRANSFORMER),
    "ova-reranked": (DISMEC, XR_TRANSFORMER),
    "mach-gandalf": (MACH, GANDALF),
    "declare-gandalf": (DECLARE, HALKO, GANDALF),
    "unidec-gandalf": (UNIDEC, DEXML, GANDALF),
}
