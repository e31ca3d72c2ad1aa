"""Words of several scripts, to ask about: everyday ones, of four letters or more."""

import unicodedata
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True, eq=False)
class Script:
    name: str
    words: tuple[str, ...]
    digits: str = ""
    """From zero to nine; empty: sums are not asked in it."""
    ending: int = 2
    """Letters of two words that rhyme."""

    @cached_property
    def letters(self) -> tuple[str, ...]:
        """All that occur, in order."""
        return tuple(sorted({letter for word in self.words for letter in letters(word)}))

    @cached_property
    def by_ending(self) -> dict[str, list[str]]:
        """Words that end alike."""
        found: dict[str, list[str]] = {}
        for word in self.words:
            found.setdefault(self.end(word), []).append(word)
        return found

    def end(self, word: str) -> str:
        return "".join(letters(word)[-self.ending :])

    def number(self, value: str) -> str:
        """A number that is written with European digits."""
        return value.translate(str.maketrans("0123456789", self.digits))


def letters(text: str) -> list[str]:
    """Characters, each with the marks that combine with it: हिन्दी has three."""
    found: list[str] = []
    for character in text:
        if found and unicodedata.category(character).startswith("M"):
            found[-1] += character
        else:
            found.append(character)
    return found


LATIN = Script("latin", tuple("""
about above accident after again almost anchor animal answer apple arrow artist autumn barrel
basket beach beauty before belief belong better between blanket border bottle bottom branch bread
breakfast breath bridge bright broken brother bucket butter button camera candle captain careful
carpet carry castle centre certain chair chance change cheese chicken children choice church
circle clean clock clothes cloud coffee collect colour common company concert copper corner cotton
country cousin credit crowd custom dance danger daughter decide degree desert detail dinner doctor
double dragon dream driver eagle early earth effort eight empty energy engine escape evening event
expect fabric factory family famous farmer farther father feather fence figure finger finish
flower follow forest forget fortune freedom friend frozen future garden gather general gentle
ghost giant glass golden grass green ground hammer handle happy harbour heart heavy history hollow
honest honey horse hotel house hundred hunter island jacket jungle justice kettle kitchen knight
ladder language lantern large laugh leather lesson letter light listen little lovely machine magic
manner marble market master meadow measure message metal method middle minute mirror model moment
money month morning mother mountain music narrow nation nature needle never night notice number
object ocean office orange orchard other outside oxygen palace paper parent patient peace pencil
people pepper person piano picture pillow planet plastic please plenty pocket poetry pollen potato
powder present pretty prison problem promise proper purple quick quiet rabbit rather river round
saddle school second seven shadow sheep shoulder silver simple sister sleep smile smooth spoon
spring square station stone story strange street strong sugar summer supper table teacher thank
thing three thunder today together tomorrow travel tree trouble under village visit voice water
weather welcome wheel whisper white window winter woman wonder world write yellow young
""".split()), "0123456789")  # fmt: skip

CYRILLIC = Script("cyrillic", tuple("""
апельсин аптека бабочка берег билет больница борода брат буква булка ведро ветер вечер вишня вода
воздух волна ворота врач время встреча город гость груша дверь деньги дерево дорога дочка друг
жизнь завод заяц здание земля зеркало зима золото игрушка камень карман картина кирпич ключ книга
ковер колесо конец корабль корзина костюм кошка кровать кухня лампа лебедь лестница летчик линия
лошадь луна магазин малина масло машина медведь мельница месяц молоко море мост музыка народ небо
неделя ножницы облако обувь огонь озеро орех осень остров парень паук песня письмо план платье
площадь погода подарок поезд пожар поле помощь портрет порядок праздник птица пчела работа радость
растение ребенок река рубашка рыба сахар свеча север сердце скатерть слово снег собака совет солнце
стена стол страна сумка театр тетрадь трава туман улица урок утро фонарь хлеб холод художник цветок
часы человек чудо школа шляпа яблоко язык ягода
""".split()))  # fmt: skip

GREEK = Script("greek", tuple("""
αγορά αδελφός αέρας άλογο άνεμος άνθρωπος άνοιξη απάντηση αρχή αστέρι αυλή βάρκα βιβλίο βουνό βροχή
γάλα γάμος γέφυρα γλώσσα γράμμα γραφείο γυναίκα δάσος δέντρο δουλειά δρόμος δύναμη δωμάτιο ελιά
ελπίδα εποχή εργάτης ερώτηση ζάχαρη ζωγράφος ζώνη ήλιος ημέρα ήπειρος θάλασσα θείος θέση θόρυβος
ιατρός ιδέα ιστορία καθρέφτης καιρός καλοκαίρι κάμπος καπέλο καράβι καρδιά καρέκλα κάστρο κεφάλι
κήπος κλειδί κορίτσι κόσμος κουζίνα κρεβάτι κύκλος κύμα λάδι λεμόνι λέξη λιμάνι λουλούδι μαθητής
μαλλιά μαχαίρι μέλισσα μέρος μηχανή μήλο μολύβι μουσική μύθος νερό νησί νόμος νύφη ξύλο οδηγός
όνειρο όνομα ουρανός παιδί παλάτι παράθυρο πατέρας πέτρα πηγή πίνακας πλατεία πλοίο πόλεμος πόλη
πόρτα ποτάμι ποτήρι πουλί πρόβατο πρόσωπο πύργος ρολόι ρούχα σελήνη σίδερο σκάλα σκύλος σπίτι
σταθμός σύννεφο σχολείο σώμα ταξίδι τοίχος τραγούδι τραπέζι τρένο τυρί ύπνος φαγητό φεγγάρι φίλος
φόβος φύλλο φωνή χαρά χειμώνας χέρι χιόνι χρόνος χρυσός χώρα ψάρι ψωμί ώρες
""".split()))  # fmt: skip

HEBREW = Script("hebrew", tuple("""
אבטיח אגרטל אדמה אוהל אויר אולם אונייה אוצר אורח אחות איכר אילן אישה אמבטיה אצבע ארגז ארנב ארון
ארוחה בגדים בדיחה בוקר ביצה בירה ברווז בריכה גבינה גדול דבורה דגים דולפין דרכון היסטוריה ועידה
ורדים זהות זיכרון זמיר חברה חולצה חורף חלון חלומות חנות חצוצרה חקלאי טבעת טירה טלפון יבשה ילדה
ילקוט ירושה ישיבה כביש כדור כלנית כנסת כפית כרטיס כתובת לחמניה לימון לשון מגדל מדבר מדינה מורה
מזוודה מחברת מטבח מטוס מכונית מכתב ממלכה מנגינה מסעדה מספר מפתח מצלמה מראה משחק משפחה נהגת נמלה
נסיכה נעליים נערה סביבה סיפור סירה סכין ספינה ספרייה עגבניה עיפרון עיתון ערבה עתיד פגישה פירות
פנסים פעמון פרחים צבעים ציפור צלחת קופסה ראיון רחוב ריבוע רכבת רפואה שבוע שולחן שועל שמחה שמים שעון
שפתיים תהילה תמונה תפוח תקווה תרבות
""".split()))  # fmt: skip

ARABIC = Script("arabic", tuple("""
أرنب أسبوع أستاذ أسرة بحيرة بداية برتقال برنامج بستان بطاقة بطيخ بناية بيضاء تاريخ تجارة تذكرة تفاح
تلميذ تمثال ثعلب ثقافة جامعة جدار جزيرة جسور جواب حافلة حديقة حذاء حصان حقيبة حكاية حليب حمامة حياة
خريطة خزانة خشبية خياط دجاجة دراجة درجات دفتر دقيقة دولاب ذاكرة ذهبي رئيس رحلة رسالة رصيف رمال
رياضة زراعة زرافة زهور زيتون ساعة سحاب سفينة سلام سماء سمكة سنبلة سيارة شارع شاطئ شباك شجرة شراع
شمعة صابون صباح صحراء صداقة صديق صندوق صورة صيدلية ضفدع طائرة طالب طاولة طريق طعام طفولة عاصفة عالم
عجلات عدالة عصفور عمارة عنوان غابة غرفة غزال فاكهة فراشة فستان فلاح فنجان قارب قاموس قطار قلعة قميص
قنديل كتاب كرسي كلمة لغات ليمون مئذنة ماضي متحف مدرسة مدينة مرآة مرحبا مساء مستشفى مسجد مصباح مطبخ
مفتاح مكتبة ملعب ملابس منزل مهندس موسيقى ميزان نافذة نجار نجوم نخلة نسيم نهاية هدية هواء وردة وطني
ولاية
""".split()), "٠١٢٣٤٥٦٧٨٩")  # fmt: skip

DEVANAGARI = Script("devanagari", tuple("""
अखबार अगरबत्ती अचानक अजगर अदरक अध्यापक अनुभव अपराध अभिनय अमरूद अलमारी असफल आजकल आदमियत आमदनी आरामदायक
आसमान इतिहास इमारत उत्तराधिकार उदाहरण उपन्यास उपवन एकादशी ओखलीनुमा कचहरी कटहल कठपुतली कबूतर कमरबंद करतब
कलाकार कहानियाँ कागजात कामयाब कारखाना कारीगर किताबघर किलकारी कुदरती कोतवाल खरगोश खरबूजा खलिहान गगनचुंबी
गतिविधि गरदन गलियारा गिलहरी गुणवान घबराहट घरवाला घुड़सवार चटपटा चमगादड़ चरवाहा चहलपहल चालबाज चिड़ियाघर
चौकीदार छटपटाना छिपकली जनसभा जमघट जलपान जहाजरानी जादूगर जानवर जिम्मेदार टहलना डाकघर तकनीकी तरबूज तलवार
तहसील ताजमहल तितलियाँ थकावट दमकल दरवाजा दशहरा दिलचस्प दुकानदार देवनागरी धनुषधारी नगरपालिका नारियल निमंत्रण
नौजवान पकवान पटवारी पनघट परिवार पलटन पहचान पहलवान पाठशाला पुलिसवाला बचपन बरगद बरसात बलवान बहादुर
बाजीगर बादशाह बारहमासी बिजलीघर भगवान भलमनसाहत भारतीय मकड़ियाँ मजदूर मनमोहक मलाईदार महासागर मानसरोवर
मिठाईवाला मुसाफिर मेहमान राजधानी रेलगाड़ी लगातार वनस्पति विज्ञापन विमानतल शतरंज शरारत समाचार सरोवर सहपाठी
साहसिक सुनहरा हथकड़ी हलवाई हिमालय होशियार
""".split()), "०१२३४५६७८९", ending=1)  # fmt: skip

HAN = Script("han", tuple("""
公共汽车 电子邮件 高速公路 自然科学 人工智能 中华民族 世界地图 天气预报 交通事故 城市规划 环境保护
国际贸易 经济发展 社会福利 历史人物 文化遗产 民间故事 传统节日 春夏秋冬 东西南北 山清水秀 风和日丽
鸟语花香 青山绿水 万里长城 黄河流域 长江三峡 北京大学 清华校园 上海外滩 四川火锅 广东早茶 西湖龙井
江南水乡 草原牧民 沙漠骆驼 海洋生物 森林公园 动物世界 植物标本 农业机械 工业革命 建筑材料 石油化工
钢铁工人 纺织女工 地下铁道 飞机跑道 轮船码头 自行车道 手机号码 电视节目 电影明星 音乐学院 美术教师
体育比赛 足球运动 乒乓球台 游泳冠军 小学课本 中学老师 大学教授 研究生院 图书馆长 实验报告 物理公式
化学反应 数学考试 语文作业 英语词典 计算机房 网络安全 软件工程 信息技术 数据分析 银行存款 股票市场
商店橱窗 服装设计 家庭主妇 幼儿教育 老年大学 青年旅馆 医院病房 中医药房 护士小姐 健康饮食 新鲜蔬菜
水果沙拉 红烧牛肉 糖醋排骨 麻婆豆腐 清蒸鲈鱼 小麦面粉 白米稀饭 春节晚会 元宵花灯 端午龙舟 中秋月饼
重阳登高 圣诞礼物 生日蛋糕 结婚戒指 法律顾问 政府机关 人民代表 外交政策 和平条约 军事基地 消防队员
邮政编码 报纸新闻 杂志封面 诗歌朗诵 小说作家 京剧脸谱 书法展览 古代陶瓷 温度计量 太阳系统 月球表面
宇宙飞船 人造卫星 地震监测 台风警报 森林火灾
""".split()), "〇一二三四五六七八九", ending=1)  # fmt: skip

HANGUL = Script("hangul", tuple("""
고속도로 자연과학 인공지능 대중교통 초등학교 대학병원 국립공원 일기예보 교통사고 환경보호 국제무역
경제발전 사회복지 역사인물 문화유산 전통시장 남녀노소 동서남북 봄나들이 여름방학 가을하늘 겨울바다
아침식사 저녁노을 무지개떡 해바라기 진달래꽃 소나무숲 은행나무 대나무밭 강아지풀 고슴도치 호랑나비
잠자리채 귀뚜라미 개구리알 다람쥐통 너구리굴 딱따구리 두루미춤 까치설날 비둘기집 참새구이 갈매기섬
바닷가재 오징어국 고등어찜 미역국물 김치찌개 된장국밥 비빔냉면 떡볶이집 불고기판 삼계탕집 잔치국수
만두피살 감자튀김 고구마순 포도주스 사과나무 복숭아꽃 수박화채 딸기우유 오렌지색 파인애플 초콜릿맛
아이스크 커피자판 버스정류 지하철역 기차여행 비행기표 자전거길 오토바이 택시기사 운전면허 신호등불
횡단보도 주차장비 휴게소앞 도서관장 박물관문 미술전시 음악선생 체육대회 축구선수 야구장갑 농구시합
배드민턴 수영교실 태권도복 마라톤화 컴퓨터실 휴대전화 텔레비전 라디오극 세탁기통 냉장고문 청소기줄
선풍기날 전자레인 형광등빛 손전등불 건전지통 할아버지 할머니댁 외삼촌네 며느리감 어린이날 젊은이들
아주머니 아저씨네 국어사전 영어회화 수학문제 과학실험 한글맞춤 세종대왕 이순신장 거북선돛 남산타워
한강다리 제주도민 부산항구
""".split()), ending=1)  # fmt: skip

SCRIPTS = (LATIN, CYRILLIC, GREEK, HEBREW, ARABIC, DEVANAGARI, HAN, HANGUL)
