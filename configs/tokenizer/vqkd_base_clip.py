"""VQ-KD tokenizer for BEiT v2, taught by CLIP ViT-B/16: 8192 codes, trained on ImageNet-1k for 100 epochs.

Source    BEiT v2 (arXiv 2208.06366, section 3.1) and microsoft/unilm, beit2/TOKENIZER.md
Expected  untested here; codebook usage 97-100 % (paper)
Hardware  8 GPUs x 64 images = 512 per step; time not measured. The published runs used mixed precision
Command   bash tools/dist_train.sh configs/tokenizer/vqkd_base_clip.py 8 --amp
Start     none, random weights; the teacher's are vit_base_patch16_clip_224.openai, fetched by timm, or a file
          in model.teacher.checkpoint
Input     0..255; the tokenizer takes it to [-1, 1], the teacher to its own mean and deviation
"""

_base_ = ['./_base_/vqkd_base.py', './_base_/imagenet.py', '../pretraining/_base_/runtime.py']

model = dict(
    teacher=dict(
        type='TimmTeacher',
        name='vit_base_patch16_clip_224.openai',
        project=True,  # to the 512 numbers that CLIP compares with text
    )
)
