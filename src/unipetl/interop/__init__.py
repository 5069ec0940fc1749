"""Other people's files: read into attachments that compute the same function.

``official`` is the released code of He et al. 2022, ``peft`` the folders of Hugging Face PEFT.
"""
