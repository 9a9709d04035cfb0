import numpy as np
import pyarrow as pa

from winnow.embed.labels import label_clusters

FILL = "the and with from that this have which"
TEXTS = (
    [f"{FILL} goalie puck skates rink number {i}" for i in range(10)]
    + [f"{FILL} oven flour butter recipe number {i}" for i in range(10)]
    + [f"{FILL} orbit rocket launch payload number {i}" for i in range(10)]
)
CLUSTER = np.repeat([0, 1, 3], 10).astype(np.int32)


def test_labels_are_the_words_of_their_own_cluster():
    labels = label_clusters(pa.array(TEXTS), CLUSTER, k=4, terms=4)
    assert labels[0] == "goalie, puck, rink, skates"
    assert labels[1] == "butter, flour, oven, recipe"
    assert labels[3] == "launch, orbit, payload, rocket"


def test_a_cluster_without_documents_or_words_has_a_label_too():
    assert label_clusters(TEXTS, CLUSTER, k=4)[2] == "(none)"
    assert label_clusters(["", "12 34"], np.array([0, 1]), k=2) == ["(none)", "(none)"]


def test_labels_do_not_depend_on_the_order_of_documents():
    order = np.random.default_rng(0).permutation(len(TEXTS))
    assert label_clusters([TEXTS[i] for i in order], CLUSTER[order], 4) == label_clusters(TEXTS, CLUSTER, 4)


def test_one_document_that_repeats_a_word_does_not_name_the_cluster():
    texts = [*TEXTS, "lottery " * 200]
    cluster = np.append(CLUSTER, 0)
    assert not label_clusters(texts, cluster, k=4, terms=4)[0].startswith("lottery")


def test_labels_have_at_most_the_asked_number_of_terms():
    assert all(len(label.split(", ")) <= 2 for label in label_clusters(TEXTS, CLUSTER, k=4, terms=2))
