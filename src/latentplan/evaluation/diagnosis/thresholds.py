"""The threshold of each verdict, and why it is there. Conventions, not laws: figures stand beside them."""

from latentplan.rollout.decoding_accuracy import RELIABLE_RECONSTRUCTION

RECONSTRUCTION = RELIABLE_RECONSTRUCTION
"""Steps read back exactly. Below it, what is decoded says more about the decoder than about the latents."""

USED_SHARE = 0.1
"""Of the accuracy: latents whose exchange costs less than a tenth of the right answers are ornament."""

FOLLOWED_EDITS = 0.5
"""Of the edits: if the answer follows the latents in less than half of them, something else decides it."""

COMPUTED_WHILE_ANSWERING = 0.2
"""Of the edits of a last step that leave the answer as it was: with more, it is no accident."""

KEPT_BY_LAST_STEP = 0.9
"""Of the accuracy: a last step that keeps so much of it alone is where the answer is read."""

INFORMATION_BITS = 1.0
"""In a slot, about the question: with less, its latents cannot even tell two kinds of question apart."""

ACTIVE_VARIANCE = 0.01
"""A unit is active if its mean varies by more between questions (Burda et al. 2016, arXiv:1509.00519)."""

LENGTH_CORRELATION = 0.3
"""Of latents with difficulty: below it, length explains less than a tenth of difficulty (0.3² = 0.09)."""

EXCESS_STEPS = 0.5
"""Latent steps beyond those needed, on average: with more, about every second problem gets one too many."""

STOPS_WHERE_NEEDED = 0.9
"""Of the problems: as for reconstruction, one wrong in ten is what the later figures can bear."""

CALIBRATION_ERROR = 0.1
"""Of the stop probability: it is wrong by ten points on average."""

VALID_PLANS = 0.9
"""Of the right answers: with fewer, the decoded plan does not explain the answer beside it."""

LATENT_SIGNAL = 0.02
"""Of the variance of rewards: with less, the score of the latents is noise; RL warns at the same share."""
