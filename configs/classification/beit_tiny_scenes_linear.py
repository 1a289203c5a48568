"""Linear probe of a tiny BEiT on the rendered scenes, all layers: class token, mean of the patches, both.

Source    this project
Expected  54.2 top-1 of 59 pictures at the best layer, the fourth, mean of the patches (measured 2026-11-21, of what
          configs/pretraining/beit_tiny_scenes.py writes); the largest class has 37 %
Hardware  all 12 layers in 12 s of CPU time on one thread of an AMD EPYC, features included
Command   python tools/make_image_folder.py data/scenes/images --out data/scenes_folders
              --from-masks data/scenes/annotations 2=building 5=tree 7=road 10=grass
          python tools/linear_probe.py configs/classification/beit_tiny_scenes_linear.py
              work_dirs/beit_tiny_scenes/iter_100.pth
Start     the checkpoint that is probed, any that the package reads
Input     ImageNet mean/std, as the tiny segmentation configs
"""

_base_ = ['./beit_tiny_scenes.py']

linear_probe = dict(features=['cls', 'mean', 'both'], epochs=100, lr=4e-3, weight_decay=1e-4, batch_size=1024)
