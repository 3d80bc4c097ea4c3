from assets.pictures.spelling import distinct, normalised


def test_spellings_of_one_text_differ_in_case_width_space_and_composition():
    assert distinct(["Red  heart", "red heart", " ", "ＲＥＤ HEART", "blue heart"]) == ["Red  heart", "blue heart"]
    assert normalised("cafe\u0301") == normalised("CAFÉ") != normalised("cafe")
